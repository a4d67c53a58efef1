#!/usr/bin/env python3
"""PyTorch's side of bench/ops_bench and bench/conv_bench: single ops and single convolutions on the CPU.

    torch_kernels.py ops|layers [--precision f32|bf16] [--threads 2] [--batch 128] < NAMES

NAMES are Google Benchmark's, one per line ("relu/f32/forward/threads:2/manual_time", "16->32 32x32 s2/grad_input/f32/
automatic/threads:2/manual_time"); the shapes are those of the benches. Prints one line of JSON: name -> microseconds,
the better of the default and the channels-last layout, null where PyTorch has no counterpart.
"""
import argparse
import json
import os
import re
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["ops", "layers"])
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--min-time", type=float, default=0.03, help="seconds per case")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

torch.set_num_threads(args.threads)
torch.manual_seed(0)
DTYPE = torch.bfloat16 if args.precision == "bf16" else torch.float32
N = args.batch
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def noise(*shape, layout=torch.contiguous_format, dtype=None):
    x = torch.randn(*shape).to(dtype or DTYPE)
    return x.to(memory_format=layout) if len(shape) == 4 else x


def microseconds(work, prepare=lambda: None):
    """Mean of the runs of at least --min-time, after two of warm-up."""
    total, runs = 0.0, -2
    while runs < 3 or total < args.min_time:
        prepare()
        start = time.perf_counter()
        work()
        if runs >= 0:
            total += time.perf_counter() - start
        runs += 1
    return 1e6 * total / runs


def layer(name, layout):
    shape, pass_ = name.split("/")[:2]
    c, k, size, r, s, stride = re.fullmatch(r"(\d+)->(\d+) (\d+)x\d+(?: (\d)x(\d))?(?: s(\d))?", shape).groups()
    c, k, size, r, stride = int(c), int(k), int(size), int(r or 3), int(stride or 1)
    x, w = noise(N, c, size, size, layout=layout), noise(k, c, r, r, layout=layout)
    y = F.conv2d(x, w, None, stride, r // 2)
    if pass_ == "forward":
        return microseconds(lambda: F.conv2d(x, w, None, stride, r // 2))
    gy = torch.randn_like(y)
    mask = [pass_ == "grad_input", pass_ == "grad_weight", False]
    return microseconds(lambda: torch.ops.aten.convolution_backward(
        gy, x, w, None, [stride] * 2, [r // 2] * 2, [1, 1], False, [0, 0], 1, mask))


def pad_crop_flip(x):
    padded = F.pad(x, (4, 4, 4, 4))
    return padded[:, :, 3:35, 3:35]


def js_div(p, q, t=4.0):
    a, b = F.log_softmax(p / t, 1), F.log_softmax(q / t, 1)
    m = torch.log(0.5 * (a.exp() + b.exp()))
    return 0.5 * t * t * (F.kl_div(m, a, reduction="batchmean", log_target=True) +
                          F.kl_div(m, b, reduction="batchmean", log_target=True))


def op_table(layout):
    """Name -> (inputs, function) as Row::timed of the op table (tests/op_table)."""
    act = lambda: noise(N, 64, 16, 16, layout=layout)  # noqa: E731
    positive = lambda: torch.full((N, 64, 16, 16), 1.5).to(DTYPE).to(memory_format=layout)  # noqa: E731
    image, rows, feature = (lambda: noise(N, 3, 32, 32, layout=layout)), (lambda: noise(N, 10)), (lambda: noise(N, 512))
    labels, order = torch.randint(0, 10, (N,)), torch.randperm(N)
    mean64, var64 = torch.zeros(64), torch.ones(64)
    mean3, std3 = torch.full((1, 3, 1, 1), 0.5, dtype=DTYPE), torch.full((1, 3, 1, 1), 0.25, dtype=DTYPE)
    theta = torch.tensor([[0.75, 0, -0.06], [0, 0.75, -0.06]]).expand(N, 2, 3).to(DTYPE)

    def norm(training):
        return lambda x, w, b: F.relu(F.batch_norm(x, mean64, var64, w, b, training, 0.1, 1e-5), inplace=True)

    def statistics(x):
        var, mean = torch.var_mean(x, [0, 2, 3], unbiased=False)
        return torch.norm(mean - mean64, 2) + torch.norm(var - var64, 2)

    def info_nce(q, keys):
        logits = F.normalize(q, dim=1) @ F.normalize(keys, dim=1).t() / 0.1
        return F.cross_entropy(logits, order)

    unary = {"add_scalar": lambda x: x + 0.5, "mul_scalar": lambda x: x * 0.5, "neg": torch.neg, "exp": torch.exp,
             "square": torch.square, "abs": torch.abs, "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
             "clamp": lambda x: x.clamp(-1, 6), "relu6": F.relu6, "flatten": lambda x: x.flatten(1).contiguous(),
             "permute": lambda x: x.permute(0, 2, 3, 1).contiguous(), "channel_shuffle": lambda x: F.channel_shuffle(x, 4),
             "sigmoid": torch.sigmoid, "tanh": torch.tanh, "erf": torch.erf, "sum": torch.sum,
             "mean": lambda x: x.mean((2, 3)), "norm": torch.norm,
             "narrow": lambda x: x[:, 16:64].contiguous(memory_format=layout),
             "subsample_pad_channels": lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 32, 32)),
             "bn_statistics": statistics, "max_pool2d": lambda x: F.max_pool2d(x, 2),
             "avg_pool2d": lambda x: F.avg_pool2d(x, 2), "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 4),
             "global_avg_pool": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
             "upsample_nearest2d": lambda x: F.interpolate(x, scale_factor=2)}
    table = {name: ([act()], f) for name, f in unary.items()}
    table.update({name: ([positive()], f) for name, f in (("log", torch.log), ("sqrt", torch.sqrt))})
    table.update({name: ([act(), act()], f) for name, f in (
        ("add", torch.add), ("sub", torch.sub), ("mul", torch.mul), ("cat", lambda a, b: torch.cat([a, b], 1)))})
    table["div"] = [act(), positive()], torch.div
    table.update({name: ([feature()], f) for name, f in (
        ("reshape", lambda x: x.reshape(N, 8, 64)), ("index_select", lambda x: x.index_select(0, order)),
        ("transpose", lambda x: x.t().contiguous()), ("normalize", lambda x: F.normalize(x, dim=1)))})
    table.update({name: ([rows()], f) for name, f in (
        ("softmax", lambda x: F.softmax(x, 1)), ("log_softmax", lambda x: F.log_softmax(x, 1)),
        ("cross_entropy", lambda x: F.cross_entropy(x, labels)))})
    table["kl_div"] = [rows(), rows()], lambda a, b: 16 * F.kl_div(
        F.log_softmax(a / 4, 1), F.log_softmax(b / 4, 1), reduction="batchmean", log_target=True)
    table["js_div"] = [rows(), rows()], js_div
    table["matmul"] = [noise(512, 512), noise(512, 512)], torch.matmul
    table["linear"] = [feature(), noise(10, 512), noise(10)], F.linear
    table["conv2d"] = [act(), noise(64, 64, 3, 3, layout=layout)], lambda x, w: F.conv2d(x, w, None, 1, 1)
    table["conv_transpose2d"] = ([act(), noise(64, 32, 4, 4, layout=layout)],
                                 lambda x, w: F.conv_transpose2d(x, w, None, 2, 1))
    for name, training in (("batch_norm_train", True), ("batch_norm_eval", False)):
        table[name] = [act(), torch.ones(64), torch.zeros(64)], norm(training)
    table["pad_crop_flip"] = [image()], pad_crop_flip
    table["resized_crop_flip"] = [image()], lambda x: F.grid_sample(
        x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)
    table["normalize_channels"] = [image()], lambda x: (x - mean3) / std3
    table["info_nce"] = [noise(N, 256), noise(N + 4096, 256)], info_nce
    return table


def op(name, table):
    what, _, pass_ = name.split("/")[:3]
    if what not in table:
        return None
    inputs, f = table[what]
    if pass_ == "forward":
        with torch.no_grad():
            return microseconds(lambda: f(*inputs))
    leaves = [x.detach().clone().requires_grad_(True) for x in inputs]
    state = {}

    def prepare():
        for leaf in leaves:
            leaf.grad = None
        state["y"] = f(*leaves)
        if "gy" not in state:
            state["gy"] = torch.ones_like(state["y"])
    return microseconds(lambda: state["y"].backward(state["gy"]), prepare)


def best(name, tables):
    times = []
    for layout, table in tables:
        try:
            times.append(layer(name, layout) if args.what == "layers" else op(name, table))
        except RuntimeError as e:  # an op that this dtype lacks
            print(f"{name}: {str(e).splitlines()[0]}", file=sys.stderr)
            times.append(None)
    times = [t for t in times if t is not None]
    return min(times) if times else None


tables = [(layout, op_table(layout) if args.what == "ops" else None) for layout in LAYOUTS]
print(json.dumps({name: best(name, tables) for name in sys.stdin.read().split("\n") if name}))
