#!/usr/bin/env python3
"""Writes tests/data/cmi_step.safetensors: one inversion step of CMI (one teacher) computed by PyTorch.

The test tests/mtcki/cmi_reduction_test.cpp feeds the same images, views, labels, networks, contrast head and
bank rows to our loss with the switches that reduce it to CMI, and compares the loss terms, their sum,
and the gradients that reach the images and the head.

  python scripts/make_cmi_fixture.py        (needs torch and safetensors)
"""
import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

B, SIZE, K, PAD, TAU, PAST, DIM = 4, 28, 10, 2, 0.1, 7, 16
ALPHA, BETA, GAMMA, LAMBDA = 1.0, 0.5, 0.5, 0.8


class Vgg8(nn.Module):
    """VGG-8 with batch norm, the names of the field's checkpoints."""

    def __init__(self, width):
        super().__init__()
        widths, channels = [int(w * width) for w in (64, 128, 256, 512, 512)], 1
        for i, w in enumerate(widths):
            self.add_module(f"block{i}", nn.Sequential(nn.Conv2d(channels, w, 3, padding=1), nn.BatchNorm2d(w)))
            channels = w
        self.classifier = nn.Linear(channels, K)

    def forward(self, x):
        for i in range(5):
            x = F.relu(getattr(self, f"block{i}")(x))
            if i < 3:
                x = F.max_pool2d(x, 2)
        return self.classifier(x.mean((2, 3)))


def settle(net, seed):
    generator = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.copy_(0.3 * torch.randn(m.num_features, generator=generator))
            m.running_var.copy_(0.5 + torch.rand(m.num_features, generator=generator))
            with torch.no_grad():
                m.weight.copy_(0.5 + torch.rand(m.num_features, generator=generator))
                m.bias.copy_(0.3 * torch.randn(m.num_features, generator=generator))
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            with torch.no_grad():
                fan = m.weight[0].numel()
                m.weight.copy_(torch.randn(m.weight.shape, generator=generator) * math.sqrt(2 / fan))
                m.bias.copy_(0.1 * torch.randn(m.bias.shape, generator=generator))
    for p in net.parameters():
        p.requires_grad_(False)
    return net.eval()


def global_view(x, offset, flip):
    padded = F.pad(x, (PAD,) * 4)
    views = []
    for i in range(B):
        dy, dx = offset[i].tolist()
        v = padded[i, :, dy:dy + SIZE, dx:dx + SIZE]
        views.append(v.flip(-1) if flip[i] else v)
    return torch.stack(views)


def local_view(x, box, flip):
    views = []
    for i in range(B):
        y0, x0, h, w = box[i].tolist()
        step = torch.arange(SIZE, dtype=torch.float64) + 0.5
        sy, sx = y0 + step * h / SIZE - 0.5, x0 + step * w / SIZE - 0.5
        gy, gx = (2 * sy + 1) / SIZE - 1, (2 * sx + 1) / SIZE - 1
        grid = torch.stack(torch.broadcast_tensors(gx[None, :], gy[:, None]), -1)[None]
        v = F.grid_sample(x[i:i + 1], grid, padding_mode="border", align_corners=False)[0]
        views.append(v.flip(-1) if flip[i] else v)
    return torch.stack(views)


def main():
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float32)
    teacher, student = settle(Vgg8(0.125), 1), settle(Vgg8(0.0625), 43)
    mean, std = 0.2860, 0.3530
    x32 = torch.rand(B, 1, SIZE, SIZE)
    labels = torch.tensor([0, 3, 3, 9])
    offset = torch.tensor([[0, 4], [2, 2], [1, 3], [4, 0]], dtype=torch.int32)
    flip, local_flip = torch.tensor([True, False, False, True]), torch.tensor([False, True, False, True])
    box = torch.tensor([[0., 0., 28., 28.], [3.5, 7.25, 16., 14.5], [10., 0., 18., 21.], [1., 9., 20., 15.]])
    channels = sum(m.num_features for m in teacher.modules() if isinstance(m, nn.BatchNorm2d))
    head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, DIM))
    bank_local, bank_global = torch.randn(PAST, channels), torch.randn(PAST, channels)

    out = {f"teacher.{k}": v.clone() for k, v in teacher.state_dict().items()}
    out |= {f"student.{k}": v.clone() for k, v in student.state_dict().items()}
    out |= {f"head.{k}": v.detach().clone() for k, v in head.state_dict().items()}
    out |= dict(images=x32.clone(), labels=labels, offset=offset, flip=flip, local_flip=local_flip, box=box,
                bank_local=bank_local.clone(), bank_global=bank_global.clone())

    # The reference itself is computed in double precision.
    for m in (teacher, student, head):
        m.double()
    x = x32.double().requires_grad_()
    inputs = {}
    hooks = [m.register_forward_pre_hook(lambda mod, args: inputs.__setitem__(mod, args[0]))
             for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]

    def run(view):
        inputs.clear()
        logits = teacher((view - mean) / std)
        return logits, dict(inputs)

    xg, xl = global_view(x, offset, flip), local_view(x, box, local_flip)
    logits, bn_inputs = run(xg)
    bn = 0
    for module, v in bn_inputs.items():
        bn = bn + (v.mean((0, 2, 3)) - module.running_mean).norm() \
                + (v.var((0, 2, 3), unbiased=False) - module.running_var).norm()
    cls = F.cross_entropy(logits, labels)
    judged = student((xg - mean) / std)
    agree = (logits.argmax(1) == judged.argmax(1)).double()
    kl = (logits.softmax(1) * (logits.log_softmax(1) - judged.log_softmax(1))).sum(1)
    adv = -(kl * agree).mean()

    phi = lambda taps: torch.cat([v.mean((2, 3)) for v in taps.values()], 1)
    phi_g, phi_l = phi(bn_inputs), phi(run(xl)[1])
    u = F.normalize(head(torch.cat([phi_l, bank_local.double()])), dim=1)
    v = F.normalize(head(torch.cat([phi_g, bank_global.double()])), dim=1).detach()
    rows = F.cross_entropy(u @ v.T / TAU, torch.arange(B + PAST), reduction="none")
    cr = rows[:B].mean() + rows[B:].mean()
    total = ALPHA * bn + BETA * cls + GAMMA * adv + LAMBDA * cr
    total.backward()
    for h in hooks:
        h.remove()
    assert 0 < agree.sum() < B, "the agreement mask should be mixed; change the seeds"

    values = dict(bn_statistics=bn, class_prior=cls, adversarial=adv, history_contrast=cr, total=total)
    out |= {f"expected.{k}": v.detach().clone() for k, v in values.items()}
    out["expected.grad_images"] = x.grad.clone()
    out["expected.grad_head"] = head[2].weight.grad.clone()
    path = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "cmi_step.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, path)
    print({k: float(v) for k, v in values.items()}, "agree", agree.tolist(), path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
