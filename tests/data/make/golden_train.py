"""Writes tests/data/golden/train.safetensors: what PyTorch computes, in f64, for small networks.

    python tests/data/make/golden_train.py

Weights and inputs come from an integer hash that the test repeats, so none is stored. Per case:
  loss                 ten losses of training on one batch (classifiers SGD, generators Adam)
  grad/<parameter>     of the first step: L2 norm, then eight evenly spaced elements
  buffer/<name>        running statistics after the ten steps, in the same form
  eval                 output in eval mode after the ten steps (generators: 64 spaced elements)
"""
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import torch_models

OUT = pathlib.Path(__file__).resolve().parent.parent / "golden" / "train.safetensors"
STEPS, SAMPLES = 10, 8


def uniform(shape, stream):
    """[0, 1), 24 bits of a 32-bit mix (the MurmurHash3 finaliser) of index and stream."""
    n = int(np.prod(shape)) if len(shape) else 1
    x = (np.arange(n, dtype=np.uint64) + stream * 0x9E3779B9) & 0xFFFFFFFF
    x ^= x >> 16
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> 13
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    x ^= x >> 16
    return torch.tensor((x >> 8).astype(np.float64) / 2**24).reshape(shape)


def fill(model):
    for stream, (name, p) in enumerate(model.named_parameters(), start=1):
        u = 2 * uniform(p.shape, stream) - 1
        if p.dim() > 1:
            value = u * math.sqrt(6.0 / (p.numel() // p.shape[0]))
        else:
            value = 1 + 0.2 * u if name.endswith("weight") else 0.1 * u
        p.data.copy_(value)


def spaced(t, count):
    flat = t.detach().reshape(-1)
    n = min(count, flat.numel())
    return flat[[j * flat.numel() // n for j in range(n)]]


def digest(t):
    return torch.cat([t.detach().norm().reshape(1), spaced(t, SAMPLES)])


def run(out, case, model, optimizer, loss_of, x):
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model(x))
        loss.backward()
        if step == 0:
            for name, p in model.named_parameters():
                out[f"{case}/grad/{name}"] = digest(p.grad)
        losses.append(loss.item())
        optimizer.step()
    out[f"{case}/loss"] = torch.tensor(losses, dtype=torch.float64)
    for name, b in model.named_buffers():
        if b.dim():
            out[f"{case}/buffer/{name}"] = digest(b)
    out[f"{case}/eval"] = spaced(model.eval()(x), 64)
    print(case, " ".join(f"{v:.4f}" for v in losses))


def main():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    out = {}
    for name, channels, size in [("resnet8", 3, 16), ("resnet8_a", 1, 28), ("wrn10_1", 3, 16),
                                 ("wrn10_2", 3, 16), ("vgg8_w0.125", 3, 16)]:
        model = torch_models.classifier(name, channels, 10)
        fill(model)
        x = 2 * uniform((8, channels, size, size), 1000) - 1
        y = torch.tensor([(7 * i + 3) % 10 for i in range(8)])
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        run(out, name, model, optimizer, lambda z, y=y: F.cross_entropy(z, y), x)
    for name, size in [("cmi", 16), ("large", 12), ("dcgan", 32), ("dcgan", 28)]:
        model = torch_models.generator(name, 16, 8, 3, size)
        fill(model)
        z = 2 * uniform((8, 16), 1000) - 1
        target = uniform((8, 3, size, size), 1001)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2, betas=(0.5, 0.999))
        run(out, f"{name}{size}", model, optimizer,
            lambda x, t=target: ((x - t) ** 2).mean(), z)
    save_file({k: v.contiguous() for k, v in out.items()}, OUT)
    print(OUT.stat().st_size, "bytes")


main()
