#!/usr/bin/env python3
"""PyTorch's side of the comparisons: one step, in one of PyTorch's modes, timed on request.

    baseline_torch.py train     --model wrn16_1 --batch 128 --layout channels_last
    baseline_torch.py inference --model resnet18 --mode frozen
    baseline_torch.py inversion --model resnet34,vgg11,wrn40_2 --batch 256 --device cuda --precision tf32 --mode cudagraph

Modes:
    eager                       ops one by one
    frozen                      inference: traced, frozen, optimize_for_inference (batch norm folded)
    compile                     torch.compile, default; inference with inductor's freezing
    reduce-overhead             torch.compile with CUDA graphs
    max-autotune                the same, with searched kernels
    max-autotune-no-cudagraphs  searched kernels without graphs
    cudagraph                   the whole eager step captured by hand in a torch.cuda.CUDAGraph
    compile-cudagraph           the whole step of "compile" captured the same way, the update included

Written the way that is fastest and smallest in PyTorch: in-place activations, torch.var_mean for the statistics, fused
optimisers, gradients set to None, data on the device, bf16 by autocast, cudnn.benchmark. The allocator and the vector
level are the caller's choice, by environment (GLIBC_TUNABLES, ATEN_CPU_CAPABILITY).

Prints one line of JSON when it is warm ({"ready": ..., "warmup_s": ..., "losses": ...}), then one line per line of
input: a number N times N steps and answers {"us": [...], "peak_bytes": ..., "step_rss_bytes": ...,
"faults_per_step": ...} (us per step: CUDA events, on the CPU a clock; step_rss_bytes: peak resident size above that of
the process before the network was built); "quit" ends. bench/step_server.py is the caller.
"""
import argparse
import json
import os
import resource
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("step", choices=["train", "inference", "inversion"])
parser.add_argument("--model", default="resnet18", help="the network, or the teachers, comma-separated")
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--precision", choices=["f32", "tf32", "bf16"], default="f32")
parser.add_argument("--layout", choices=["default", "channels_last"], default="channels_last")
parser.add_argument("--mode", default="eager", choices=["eager", "frozen", "compile", "reduce-overhead", "max-autotune",
                                                        "max-autotune-no-cudagraphs", "cudagraph", "compile-cudagraph"])
parser.add_argument("--device", default="cpu")
parser.add_argument("--threads", type=int, default=2, help="on the CPU")
parser.add_argument("--warmup", type=int, default=4, help="steps before it is ready; their losses are printed")
parser.add_argument("--hooks", action="store_true", help="inversion: statistics by forward hooks, the natural form, "
                                                         "instead of one function over all layers")
args = parser.parse_args()
CUDA = args.device != "cpu"
if not CUDA:
    os.environ["OMP_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch_nets import Generator, make  # noqa: E402

torch.manual_seed(0)
if not CUDA:
    torch.set_num_threads(args.threads)
torch.backends.cudnn.benchmark = True
allow_tf32 = args.precision != "f32"
torch.set_float32_matmul_precision("high" if allow_tf32 and CUDA else "highest")
torch.backends.cudnn.allow_tf32 = allow_tf32
FORMAT = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format


def place(module_or_tensor):
    return module_or_tensor.to(args.device).to(memory_format=FORMAT)


def autocast():
    return torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16")


def compiled(function):
    if args.mode in ("eager", "frozen", "cudagraph"):
        return function
    # What is compiled may come from the cache; which of it is quickest is timed by each process, when little else runs.
    from torch._inductor import config
    config.autotune_local_cache = False
    return torch.compile(function, mode=None if args.mode.startswith("compile") else args.mode)


def images():
    return place(torch.randn(args.batch, 3, 32, 32))


def labels():
    return torch.randint(0, 10, (args.batch,), device=args.device)


def train():
    net = place(make(args.model))
    lr = torch.tensor(0.01, device=args.device) if CUDA else 0.01
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)
    x, y = images(), labels()

    def forward(x, y):
        with autocast():
            logits = net(x)
        return F.cross_entropy(logits.float(), y)
    loss_of = compiled(forward)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()
    return step


def inference():
    net, x = place(make(args.model)).eval().requires_grad_(False), images()
    if args.mode == "frozen":
        with torch.no_grad(), autocast():
            net = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(net, x)))
    elif args.mode == "compile":
        from torch._inductor import config
        config.freezing = True

    def forward(x):
        with autocast():
            return net(x)
    logits_of = compiled(forward)

    def step():
        with torch.no_grad():
            return logits_of(x).float().square().mean()
    return step


def statistics(module, x):
    var, mean = torch.var_mean(x.float(), [0, 2, 3], unbiased=False)
    return torch.norm(module.running_var - var, 2) + torch.norm(module.running_mean - mean, 2)


def inversion():
    teachers = [place(make(name)) for name in args.model.split(",")]
    with torch.no_grad():
        x = images()
        for teacher in teachers:
            teacher(x)
            teacher(x)
            teacher.eval().requires_grad_(False)
    generator = place(Generator())
    generator.memory_format = FORMAT
    z = torch.randn(args.batch, 256, device=args.device, requires_grad=True)
    y = labels()
    optimizer = torch.optim.Adam([{"params": generator.parameters()}, {"params": [z]}], lr=1e-3, betas=(0.5, 0.999),
                                 fused=True, **({"capturable": True} if CUDA else {}))
    taps = []

    def tap(module, inputs):
        # Natural form: the loss of a layer inside its hook. Tuned form: inputs are collected, losses taken together.
        taps.append(statistics(module, inputs[0]) if args.hooks else (module, inputs[0]))
    for teacher in teachers:
        for module in teacher.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(tap)

    def forward(latents, y):
        taps.clear()
        with autocast():
            made = generator(latents)
            logits = [teacher(made) for teacher in teachers]
        loss = sum(F.cross_entropy(z_m.float(), y) for z_m in logits)
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


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def usage():
    return resource.getrusage(resource.RUSAGE_SELF)


begin, before = time.perf_counter(), resident()
run = {"train": train, "inference": inference, "inversion": inversion}[args.step]()
losses = [run().item() for _ in range(args.warmup)]
if args.mode.endswith("-cudagraph") or args.mode == "cudagraph":
    run = captured(run)
if CUDA:
    timed(run, args.warmup)
    if "cudagraph" not in args.mode and args.mode not in ("reduce-overhead", "max-autotune"):
        torch.cuda.reset_peak_memory_stats()  # a replay allocates nothing: there the peak is that of the capture
print(json.dumps({"ready": "torch " + torch.__version__, "warmup_s": round(time.perf_counter() - begin, 1),
                  "losses": losses}), flush=True)
for line in sys.stdin:
    if line.strip() == "quit":
        break
    n, faults = int(line), usage().ru_minflt
    us = timed(run, n)
    faults = usage().ru_minflt - faults
    peak = torch.cuda.max_memory_allocated() if CUDA else 0
    print(json.dumps({"us": us, "peak_bytes": peak, "step_rss_bytes": usage().ru_maxrss * 1024 - before,
                      "faults_per_step": faults / n}), flush=True)
