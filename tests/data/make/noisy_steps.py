"""Writes tests/data/noisy_steps.safetensors: three steps of NAYER's generator, from the formula.

    python tests/data/make/noisy_steps.py

Two teachers' classifiers stand for 3 classes; 7 images, so that three noisy layers make 3, 3 and 1
of them. The loss of step t is the sum of X times grad<t>; Adam(0.05, (0.5, 0.999)) trains all.
"""
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.manual_seed(1)
CLASSES, WIDTHS, NZ, NGF, SIDE = 3, (5, 3), 4, 2, 8
labels = torch.tensor([0, 0, 0, 1, 1, 2, 2])


def drawn(*shape):
    return torch.randn(*shape).float().double()


rows = [drawn(CLASSES, d) for d in WIDTHS]
p = {"n1.weight": torch.ones(sum(WIDTHS)), "n1.bias": torch.zeros(sum(WIDTHS))}
for i in range(3):
    p[f"le1.{i}.weight"], p[f"le1.{i}.bias"] = drawn(NZ, sum(WIDTHS)), torch.zeros(NZ)
p["l1.0.weight"], p["l1.0.bias"] = drawn(8 * NGF, NZ), drawn(8 * NGF)
for i, c in ((0, 2 * NGF), (3, 2 * NGF), (7, NGF)):
    p[f"conv_blocks.{i}.weight"], p[f"conv_blocks.{i}.bias"] = 1 + 0.1 * drawn(c), 0.1 * drawn(c)
p["conv_blocks.2.weight"] = 0.3 * drawn(2 * NGF, 2 * NGF, 3, 3)
p["conv_blocks.6.weight"] = 0.3 * drawn(NGF, 2 * NGF, 3, 3)
p["conv_blocks.9.weight"], p["conv_blocks.9.bias"] = 0.3 * drawn(1, NGF, 3, 3), drawn(1)
p = {name: t.float().double().requires_grad_() for name, t in p.items()}
out = {name: t.detach().clone() for name, t in p.items()}

# Of the images of a class the first goes through layer 0, the next through layer 1, and so on; what
# is left of all classes goes through the last one.
turn = [int((labels[:i] == y).sum()) for i, y in enumerate(labels)]
order = sorted(range(len(labels)), key=lambda i: (turn[i], i))


def norm(x, name):
    return F.batch_norm(x, None, None, p[name + ".weight"], p[name + ".bias"], training=True)


def images():
    e = norm(torch.cat(rows, 1)[labels], "n1")
    z = [None] * len(labels)
    for at, row in enumerate(order):
        i = at // CLASSES
        z[row] = p[f"le1.{i}.weight"] @ e[row] + p[f"le1.{i}.bias"]
    h = F.linear(torch.stack(z), p["l1.0.weight"], p["l1.0.bias"])
    h = norm(h.reshape(len(labels), 2 * NGF, SIDE // 4, SIDE // 4), "conv_blocks.0")
    for conv, bn in ((2, 3), (6, 7)):
        h = F.conv2d(F.interpolate(h, scale_factor=2), p[f"conv_blocks.{conv}.weight"], padding=1)
        h = F.leaky_relu(norm(h, f"conv_blocks.{bn}"), 0.2)
    x = F.conv2d(h, p["conv_blocks.9.weight"], p["conv_blocks.9.bias"], padding=1)
    return torch.sigmoid(x)


adam = torch.optim.Adam(p.values(), lr=0.05, betas=(0.5, 0.999))
for t in range(3):
    x, g = images(), drawn(len(labels), 1, SIDE, SIDE)
    out[f"images{t}"], out[f"grad{t}"] = x.detach(), g
    adam.zero_grad()
    (x * g).sum().backward()
    adam.step()
out["images3"] = images().detach()
out = {name: t.float().contiguous() for name, t in out.items()}
out |= {f"rows{m}": r.float() for m, r in enumerate(rows)} | {"labels": labels}
save_file(out, "tests/data/noisy_steps.safetensors",
          metadata={"what": "tests/data/make/noisy_steps.py, computed in f64"})
