"""Writes tests/data/activation_regions.safetensors: SpaceshipNet's two losses, from their formulas.

    python tests/data/make/activation_regions.py

Two vgg8 of different width, the teacher in evaluation mode, the student in training mode, computed in
f64. There is the value of each loss, and the gradient of their sum for all weights of the student.
"""
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.manual_seed(3)
CLASSES, IMAGES = 10, 6


def drawn(*shape):
    return torch.randn(*shape).float().double()


def network(widths):
    p, c = {}, 1
    for b, w in enumerate(widths):
        p[f"block{b}.0.weight"], p[f"block{b}.0.bias"] = drawn(w, c, 3, 3) * (2 / (9 * c)) ** 0.5, 0.1 * drawn(w)
        p[f"block{b}.1.weight"], p[f"block{b}.1.bias"] = 1 + 0.1 * drawn(w), 0.1 * drawn(w)
        p[f"block{b}.1.running_mean"], p[f"block{b}.1.running_var"] = 0.1 * drawn(w), 1 + 0.1 * drawn(w) ** 2
        c = w
    p["classifier.weight"], p["classifier.bias"] = drawn(CLASSES, c) * c ** -0.5, 0.1 * drawn(CLASSES)
    return {name: t.float().double() for name, t in p.items()}


def run(p, x, training):
    """Logits, the inputs of the blocks behind the first, and the last map."""
    inputs = []
    for b in range(5):
        if b > 0:
            inputs.append(x)
        x = F.conv2d(x, p[f"block{b}.0.weight"], p[f"block{b}.0.bias"], padding=1)
        mean, var = (p[f"block{b}.1.running_{s}"] for s in ("mean", "var"))
        x = F.batch_norm(x, None if training else mean, None if training else var,
                         p[f"block{b}.1.weight"], p[f"block{b}.1.bias"], training=training)
        x = F.relu(x)
        if b < 3:
            x = F.max_pool2d(x, 2)
    return F.linear(x.mean((2, 3)), p["classifier.weight"], p["classifier.bias"]), inputs, x


def regions(logits, maps, classes):
    """Of each map: its channels, weighted by the mean slope of the class's logit."""
    slopes = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), maps, retain_graph=True)
    return [(g.mean((2, 3), keepdim=True) * a).sum(1) for g, a in zip(slopes, maps)]


def activation(p, x):
    return F.conv2d(x, p["classifier.weight"].detach()[:, :, None, None])


teacher, student = network((4, 8, 16, 32, 32)), network((2, 4, 8, 16, 16))
images = torch.rand(IMAGES, 1, 32, 32).float().double()
out = {f"teacher.{n}": t for n, t in teacher.items()} | {f"student.{n}": t.clone() for n, t in student.items()}
trained = {n: t.requires_grad_() for n, t in student.items() if "running" not in n}
x = ((images - 0.5) / 0.25).requires_grad_()  # where the teacher's graph begins
zt, at, ft = run(teacher, x, False)
zs, as_, fs = run(student, (images - 0.5) / 0.25, True)
classes = zt.argmax(1)
cam = F.mse_loss(activation(student, fs), activation(teacher, ft).detach())
# Of the inputs of the blocks the last of each size: 16, 8 and 4 pixels, which is that of the last block.
pick = [0, 1, 3]
theirs = regions(zt, [at[i] for i in pick], classes)
own = regions(zs, [as_[i] for i in pick], classes)
grad_cam = sum(F.mse_loss(a, b.detach()) for a, b in zip(own, theirs))
(cam + grad_cam).backward()
out |= {"images": images, "expected.cam": cam, "expected.grad_cam": grad_cam}
out |= {f"expected.grad.{n}": torch.zeros_like(t) if t.grad is None else t.grad for n, t in trained.items()}
save_file({n: t.detach().float().contiguous() for n, t in out.items()},
          "tests/data/activation_regions.safetensors",
          metadata={"what": "tests/data/make/activation_regions.py, computed in f64"})
