#!/usr/bin/env python3
"""PyTorch's side of bench/gpu_vs_torch.py: one step on a GPU, in one of PyTorch's modes, timed on request.

    gpu_torch.py training  --model resnet18 --batch 256 --precision bf16 --mode compile
    gpu_torch.py inversion --model resnet34,vgg11,wrn40_2 --batch 256 --precision tf32 --mode cudagraph

Modes:
    eager                       ops one by one
    compile                     torch.compile, default
    reduce-overhead             torch.compile with CUDA graphs
    max-autotune                the same, with searched kernels
    max-autotune-no-cudagraphs  searched kernels without graphs
    cudagraph                   the whole eager step captured by hand in a torch.cuda.CUDAGraph

Channels-last model and input, bf16 autocast or TF32, cudnn.benchmark, fused optimiser, gradients set to None, data on
the device. Prints one line of JSON when it is warm ({"ready": ..., "warmup_s": ...}), then one line per line of input:
a number N times N steps and answers {"us": [...]} (per step, CUDA events; on the CPU a clock); "quit" ends.
"""
import argparse
import json
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("program", choices=["training", "inversion"])
parser.add_argument("--model", default="resnet18", help="the network, or the teachers, comma-separated")
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="bf16")
parser.add_argument("--mode", default="eager", choices=["eager", "compile", "reduce-overhead", "max-autotune",
                                                        "max-autotune-no-cudagraphs", "cudagraph"])
parser.add_argument("--device", default="cuda")
parser.add_argument("--warmup", type=int, default=12)
parser.add_argument("--hooks", action="store_true", help="inversion: statistics by forward hooks, the natural form, "
                                                         "instead of one function over all layers")
args = parser.parse_args()

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch_nets import Generator, make  # noqa: E402

CUDA = args.device != "cpu"
torch.manual_seed(0)
torch.backends.cudnn.benchmark = True
allow_tf32 = args.precision != "f32"
torch.set_float32_matmul_precision("high" if allow_tf32 else "highest")
torch.backends.cudnn.allow_tf32 = allow_tf32


def place(module_or_tensor):
    return module_or_tensor.to(args.device).to(memory_format=torch.channels_last)


def autocast():
    return torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16")


def compiled(function):
    if args.mode in ("eager", "cudagraph"):
        return function
    return torch.compile(function, mode=None if args.mode == "compile" else args.mode)


def training():
    net = place(make(args.model))
    optimizer = torch.optim.SGD(net.parameters(), lr=torch.tensor(0.01, device=args.device), momentum=0.9, weight_decay=5e-4,
                                fused=True)
    x = place(torch.randn(args.batch, 3, 32, 32))
    y = torch.randint(0, 10, (args.batch,), device=args.device)

    def forward(images, labels):
        with autocast():
            logits = net(images)
        return F.cross_entropy(logits.float(), labels)
    loss_of = compiled(forward)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()
    return step


def statistics(module, x):
    var, mean = torch.var_mean(x.float(), [0, 2, 3], unbiased=False)
    return torch.norm(module.running_var - var, 2) + torch.norm(module.running_mean - mean, 2)


def inversion():
    teachers = [place(make(name)) for name in args.model.split(",")]
    with torch.no_grad():
        x = place(torch.randn(args.batch, 3, 32, 32))
        for teacher in teachers:
            teacher(x)
            teacher(x)
            teacher.eval().requires_grad_(False)
    generator = place(Generator())
    generator.memory_format = torch.channels_last
    z = torch.randn(args.batch, 256, device=args.device, requires_grad=True)
    y = torch.randint(0, 10, (args.batch,), device=args.device)
    optimizer = torch.optim.Adam([{"params": generator.parameters()}, {"params": [z]}], lr=1e-3, betas=(0.5, 0.999),
                                 fused=True, capturable=CUDA)
    taps = []

    def tap(module, inputs):
        # Natural form: the loss of a layer inside its hook. Tuned form: inputs are collected, losses taken together.
        taps.append(statistics(module, inputs[0]) if args.hooks else (module, inputs[0]))
    for teacher in teachers:
        for module in teacher.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(tap)

    def forward(latents, labels):
        taps.clear()
        with autocast():
            images = generator(latents)
            logits = [teacher(images) for teacher in teachers]
        loss = sum(F.cross_entropy(z_m.float(), labels) for z_m in logits)
        return loss + (sum(taps) if args.hooks else sum(statistics(m, x_m) for m, x_m in taps))
    loss_of = compiled(forward)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(z, y)
        loss.backward()
        optimizer.step()
        return loss.detach()
    return step


def captured(step):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay():
        graph.replay()
        return loss
    return replay


def timed(step, n):
    if not CUDA:
        times = []
        for _ in range(n):
            start = time.perf_counter()
            step()
            times.append(1e6 * (time.perf_counter() - start))
        return times
    events = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
    events[0].record()
    for i in range(n):
        step()
        events[i + 1].record()
    torch.cuda.synchronize()
    return [1e3 * a.elapsed_time(b) for a, b in zip(events, events[1:])]


begin = time.perf_counter()
run = training() if args.program == "training" else inversion()
losses = [run().item() for _ in range(10)]
if args.mode == "cudagraph":
    run = captured(run)
for _ in range(args.warmup):
    run()
if CUDA:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
print(json.dumps({"ready": "torch " + torch.__version__, "warmup_s": round(time.perf_counter() - begin, 1),
                  "losses": losses}), flush=True)
for line in sys.stdin:
    if line.strip() == "quit":
        break
    us = timed(run, int(line))
    peak = torch.cuda.max_memory_allocated() if CUDA else 0
    print(json.dumps({"us": us, "peak_bytes": peak}), flush=True)
