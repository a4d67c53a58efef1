#!/usr/bin/env python3
"""PyTorch's side of bench/training_step and bench/inversion_step: the same step, one line of JSON.

    baseline_torch.py training  --model wrn16_1  [--layout default|channels_last] [--batch 128] [--threads 2]
    baseline_torch.py inversion --model wrn40_2  ...

Written the way that is fastest and smallest in PyTorch: in-place activations, torch.var_mean for the
statistics, gradients set to None, fused optimisers. The allocator is the caller's choice: scripts/bench_vs_torch
tries glibc's defaults and GLIBC_TUNABLES that keep freed memory.
"""
import argparse
import json
import os
import resource
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("program", choices=["training", "inversion"])
parser.add_argument("--model", default="wrn16_1", help="wrn<d>_<k>, resnet18, resnet34, vgg11")
parser.add_argument("--layout", choices=["default", "channels_last"], default="default")
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--warmup", type=int, default=2)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch_nets import Generator, make  # noqa: E402

torch.set_num_threads(args.threads)
torch.manual_seed(0)


CHANNELS_LAST = args.layout == "channels_last"


def in_layout(value):
    return value.to(memory_format=torch.channels_last) if CHANNELS_LAST else value


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def training_step():
    net = in_layout(make(args.model))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    x, y = in_layout(torch.randn(args.batch, 3, 32, 32)), torch.randint(0, 10, (args.batch,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()
    return step


def inversion_step():
    teacher = in_layout(make(args.model))
    with torch.no_grad():
        x = in_layout(torch.randn(args.batch, 3, 32, 32))
        for _ in range(2):
            teacher(x)
    teacher.eval().requires_grad_(False)
    generator = in_layout(Generator())
    generator.memory_format = torch.channels_last if CHANNELS_LAST else torch.contiguous_format
    z, y = torch.randn(args.batch, 256, requires_grad=True), torch.randint(0, 10, (args.batch,))
    optimizer = torch.optim.Adam([{"params": generator.parameters()}, {"params": [z]}], lr=1e-3,
                                 betas=(0.5, 0.999), fused=True)
    losses = []

    def statistics_loss(module, inputs):
        var, mean = torch.var_mean(inputs[0], [0, 2, 3], unbiased=False)
        losses.append(torch.norm(module.running_var - var, 2) + torch.norm(module.running_mean - mean, 2))
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(statistics_loss)

    def step():
        losses.clear()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(teacher(generator(z)), y) + sum(losses)
        loss.backward()
        optimizer.step()
        return loss.item()
    return step


before = resident()
run = training_step() if args.program == "training" else inversion_step()
for _ in range(args.warmup):
    run()
ms = []
for _ in range(args.steps):
    start = time.perf_counter()
    final = run()
    ms.append(1e3 * (time.perf_counter() - start))
median = statistics.median(ms)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({
    "program": args.program + "_step", "framework": "torch " + torch.__version__, "model": args.model,
    "layout": args.layout, "batch": args.batch, "threads": args.threads, "ms": round(median, 3),
    "ms_min": round(min(ms), 3), "ms_max": round(max(ms), 3), "img_per_s": round(1e3 * args.batch / median, 2),
    "peak_rss_bytes": peak, "step_rss_bytes": peak - before, "loss": final}))
