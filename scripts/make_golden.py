#!/usr/bin/env python3
"""Writes golden files for tests/golden_check from an installed PyTorch (needs torch and numpy).

    make_golden.py [--out tests/data/golden] [--seed 0]      the small committed set, faulty files included
    make_golden.py --out DIR --models resnet18,wrn40_2       networks, one file each, all gradients

Format: docs/golden-files.md.
"""
import argparse
import json
import os
import struct
import sys

import torch
import torch.nn.functional as F

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tests", "data", "make"))
import torch_models  # noqa: E402

DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32",
          torch.bfloat16: "BF16"}


def write_safetensors(path, tensors, metadata):
    header, offset, blobs = {"__metadata__": metadata}, 0, []
    for name, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        if plain.dtype == torch.bfloat16:  # numpy has no such type
            plain = plain.view(torch.int16)
        blob = plain.numpy().tobytes()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    print(f"{os.path.relpath(path)}: {os.path.getsize(path)} bytes")


class File:
    """Collects cases; a case is computed here and stored with its gradients."""

    def __init__(self, dtype, seed):
        self.dtype, self.tensors, self.metadata = dtype, {}, {}
        self.generator = torch.Generator().manual_seed(seed)

    def randn(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def labels(self, n, k):
        return torch.randint(0, k, (n,), generator=self.generator)

    def case(self, name, op, function, inputs, frozen=(), **options):
        """inputs: tensors or None; floating ones get gradients unless their index is in frozen."""
        args = []
        for i, value in enumerate(inputs):
            if value is None:
                args.append(None)
                continue
            self.tensors[f"{name}/in{i}"] = value.clone()
            value = value.clone()
            args.append(value.requires_grad_() if value.is_floating_point() and i not in frozen else value)
        outputs = function(*args)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        seed = self.randn(*outputs[0].shape)
        leaves = [(i, a) for i, a in enumerate(args) if a is not None and a.requires_grad]
        gradients = torch.autograd.grad(outputs[0], [a for _, a in leaves], seed)
        self.tensors[f"{name}/grad_out"] = seed
        for i, y in enumerate(outputs):
            self.tensors[f"{name}/out{i}"] = y
        for (i, _), g in zip(leaves, gradients):
            self.tensors[f"{name}/grad_in{i}"] = g
        self.metadata[name] = json.dumps({"op": op, **options})

    def simple(self, name, op, inputs, frozen=(), **options):
        self.case(name, op, lambda *a: getattr(F, op)(*a, **options), inputs, frozen, **options)

    def write(self, path):
        write_safetensors(path, self.tensors, self.metadata)


def ops(f):
    r = f.randn
    f.simple("conv3x3", "conv2d", [r(2, 8, 7, 7), r(8, 8, 3, 3), r(8)], padding=1)
    if f.dtype == torch.float32:  # the shapes of the blocked layouts
        f.simple("conv3x3_wide", "conv2d", [r(1, 16, 8, 8), r(16, 16, 3, 3)], padding=1)
        f.simple("conv_image", "conv2d", [r(2, 3, 8, 7), r(16, 3, 3, 3)], stride=1, padding=[1, 1])
        f.simple("conv_stride", "conv2d", [r(1, 8, 9, 8), r(16, 8, 3, 3)], stride=2, padding=1)
        f.simple("conv1x1_stride", "conv2d", [r(2, 16, 5, 6), r(8, 16, 1, 1)], stride=[2, 2])
        f.simple("conv_to_rgb", "conv2d", [r(2, 8, 6, 6), r(3, 8, 3, 3), r(3)], padding=1)
    f.simple("conv_dilated_groups", "conv2d", [r(1, 4, 9, 9), r(6, 2, 3, 3), r(6)],
             padding=2, dilation=2, groups=2)
    f.simple("conv_rectangular", "conv2d", [r(2, 5, 7, 9), r(4, 5, 3, 2)], stride=[2, 1], padding=[1, 0])
    f.simple("conv_transpose", "conv_transpose2d", [r(1, 8, 4, 4), r(8, 8, 4, 4)], stride=2, padding=1)
    f.simple("conv_transpose_odd", "conv_transpose2d", [r(1, 3, 4, 5), r(3, 4, 3, 3), r(4)],
             stride=2, padding=1, output_padding=1)
    for rank, shape in (("4", (3, 8, 3, 3)), ("2", (6, 5))):
        channels = shape[1]
        mean, var = r(channels), r(channels).abs() + 0.5
        weight, bias = r(channels), r(channels)
        for training in (True, False):
            def batch_norm(x, m, v, w, b, training=training):
                m, v = m.clone(), v.clone()
                y = F.batch_norm(x, m, v, w, b, training, 0.2, 1e-4)
                return (y, m, v) if training else y
            f.case(f"batch_norm{rank}_{'train' if training else 'eval'}", "batch_norm", batch_norm,
                   [r(*shape) * 2 + 1, mean, var, weight, bias], frozen=(1, 2),
                   training=training, momentum=0.2, eps=1e-4)
    f.simple("linear", "linear", [r(5, 12), r(7, 12), r(7)])
    f.simple("linear_no_bias", "linear", [r(5, 12), r(7, 12)])
    f.case("matmul", "matmul", torch.matmul, [r(5, 8), r(8, 6)])
    f.case("matmul_batched", "matmul", torch.matmul, [r(3, 4, 5), r(3, 5, 2)])
    f.simple("relu", "relu", [r(2, 8, 4, 3)])
    f.simple("leaky_relu", "leaky_relu", [r(2, 8, 4, 3)], negative_slope=0.2)
    f.simple("sigmoid", "sigmoid", [r(3, 11)])
    f.simple("tanh", "tanh", [r(3, 11)])
    f.case("exp", "exp", torch.exp, [r(3, 5)])
    f.case("log", "log", torch.log, [r(3, 5).abs() + 0.1])
    f.case("sqrt", "sqrt", torch.sqrt, [r(3, 5).abs() + 0.1])
    f.case("add_broadcast", "add", torch.add, [r(2, 8, 3, 3), r(8, 1, 1)])
    f.case("mul_broadcast", "mul", torch.mul, [r(4, 1, 3), r(2, 3)])
    f.case("sub", "sub", torch.sub, [r(4, 3), r(4, 3)])
    f.case("div", "div", torch.div, [r(4, 3), r(4, 3).abs() + 0.5])
    f.case("cat", "cat", lambda *x: torch.cat(x, 1), [r(2, 3, 2, 2), r(2, 5, 2, 2)], dim=1)
    f.simple("pad", "pad", [r(2, 3, 4, 4)], pad=[1, 2, 3, 0])
    f.case("flatten", "flatten", lambda x: torch.flatten(x, 1), [r(2, 8, 3, 3)], start_dim=1)
    f.case("sum", "sum", lambda x: torch.sum(x, (0, 2)), [r(3, 4, 5)], dim=[0, 2])
    f.case("mean", "mean", lambda x: torch.mean(x, 1, True), [r(3, 4, 5)], dim=1, keepdim=True)
    f.simple("max_pool", "max_pool2d", [r(1, 8, 7, 7)], kernel_size=2, stride=2)
    f.simple("max_pool_pad_ceil", "max_pool2d", [r(2, 3, 8, 6)], kernel_size=3, stride=2, padding=1,
             ceil_mode=True)
    f.simple("avg_pool", "avg_pool2d", [r(1, 8, 6, 6)], kernel_size=2)
    f.simple("avg_pool_pad", "avg_pool2d", [r(2, 3, 7, 7)], kernel_size=3, stride=2, padding=1,
             count_include_pad=False)
    f.simple("adaptive_avg_pool", "adaptive_avg_pool2d", [r(2, 8, 7, 5)], output_size=[3, 2])
    f.simple("global_avg_pool", "adaptive_avg_pool2d", [r(2, 8, 4, 4)], output_size=1)
    f.simple("upsample", "interpolate", [r(1, 8, 4, 3)], scale_factor=2, mode="nearest")
    f.simple("resize_nearest", "interpolate", [r(1, 3, 5, 4)], size=[8, 3], mode="nearest")
    f.simple("softmax", "softmax", [r(4, 10)], dim=1)
    f.simple("log_softmax", "log_softmax", [r(4, 10) * 5], dim=-1)
    f.simple("log_softmax_channels", "log_softmax", [r(2, 6, 3, 3)], dim=1)
    logits, labels = r(8, 10) * 3, f.labels(8, 10)
    f.simple("cross_entropy", "cross_entropy", [logits, labels])
    f.simple("cross_entropy_smooth", "cross_entropy", [logits, labels], label_smoothing=0.1)
    f.simple("cross_entropy_sum", "cross_entropy", [logits, labels], reduction="sum")
    f.simple("cross_entropy_rows", "cross_entropy", [logits, labels], reduction="none")
    f.simple("nll_loss", "nll_loss", [logits.log_softmax(1), labels])
    f.simple("kl_div", "kl_div", [logits.log_softmax(1), r(8, 10).softmax(1)], frozen=(1,),
             reduction="batchmean")
    f.simple("kl_div_log_target", "kl_div", [logits.log_softmax(1), r(8, 10).log_softmax(1)],
             reduction="sum", log_target=True)

    def distil(student, teacher, t=4.0):
        return t * t * F.kl_div((student / t).log_softmax(1), (teacher / t).softmax(1), reduction="batchmean")
    f.case("kl_div_temperature", "kl_div", distil, [logits, r(8, 10) * 3], temperature=4.0, t_squared=True)
    f.simple("mse_loss", "mse_loss", [r(4, 5), r(4, 5)])
    f.simple("normalize", "normalize", [r(6, 9)], dim=1)
    f.simple("normalize_channels", "normalize", [r(2, 6, 3, 3)], dim=1)
    f.case("erf", "erf", torch.erf, [r(3, 11)])


def model_case(f, name, batch, keep=None, image=32, channels=3, classes=10, half=False, train=True, every=1):
    """First training step of a classifier: logits, loss, gradients, moved statistics. keep: gradients
    with at most so many elements are stored. half: weights are rounded to bf16 and stored so. every: of
    gradients and statistics each so-manieth. Without train the step is one in evaluation mode."""
    torch.manual_seed(1)
    net = torch_models.classifier(name, channels, classes).to(f.dtype).train()
    if not train:
        with torch.no_grad():
            net(f.randn(batch, channels, image, image))  # statistics away from 0 and 1
        net.eval()
    for key, value in net.state_dict().items():
        if every > 1 and key.endswith("num_batches_tracked"):
            continue
        if half and value.is_floating_point():
            value.copy_(value.bfloat16())
            f.tensors[f"{name}/state/{key}"] = value.bfloat16()
        else:
            f.tensors[f"{name}/state/{key}"] = value.clone()
    x, y = f.randn(batch, channels, image, image), f.labels(batch, classes)
    logits = net(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    f.tensors.update({f"{name}/in0": x, f"{name}/in1": y, f"{name}/out0": logits, f"{name}/loss": loss})
    some = [(key, p) for key, p in net.named_parameters() if keep is None or p.numel() <= keep]
    for key, p in some[::every]:
        f.tensors[f"{name}/grad/{key}"] = p.grad
    if train:
        for key, b in [(key, b) for key, b in net.named_buffers() if "running" in key][::every]:
            f.tensors[f"{name}/buffer/{key}"] = b
    f.metadata[name] = json.dumps({"op": "model", "model": name, "num_classes": classes, "training": train,
                                   "loss": "cross_entropy"})


def generator_case(f, kind, batch, nz, ngf):
    torch.manual_seed(2)
    net = torch_models.generator(kind, nz, ngf).to(f.dtype).train()
    name = f"generator_{kind}"
    for key, value in net.state_dict().items():
        f.tensors[f"{name}/state/{key}"] = value.clone()
    z = f.randn(batch, nz).requires_grad_()
    images = net(z)
    seed = f.randn(*images.shape)
    images.backward(seed)
    f.tensors.update({f"{name}/in0": z, f"{name}/grad_in0": z.grad, f"{name}/out0": images,
                      f"{name}/grad_out": seed})
    for key, p in net.named_parameters():
        f.tensors[f"{name}/grad/{key}"] = p.grad
    f.metadata[name] = json.dumps({"op": "model", "model": name, "nz": nz, "ngf": ngf, "training": True})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=os.path.join(ROOT, "tests", "data", "golden"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default="", help="comma-separated names; instead of the small set")
    parser.add_argument("--batch", type=int, default=8, help="of --models")
    parser.add_argument("--dtype", choices=["f32", "f64"], default="f32", help="of --models")
    a = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(a.out, exist_ok=True)
    if a.models:
        for name in a.models.split(","):
            f = File(torch.float32 if a.dtype == "f32" else torch.float64, a.seed)
            model_case(f, name, a.batch)
            f.write(os.path.join(a.out, f"model_{name}_{a.dtype}.safetensors"))
        return
    for dtype, label in ((torch.float32, "f32"), (torch.float64, "f64")):
        f = File(dtype, a.seed)
        ops(f)
        f.write(os.path.join(a.out, f"ops_{label}.safetensors"))
    f = File(torch.float32, a.seed)
    model_case(f, "resnet8", 2, keep=2500, half=True)
    f.write(os.path.join(a.out, "model_resnet8.safetensors"))
    f = File(torch.float32, a.seed)
    model_case(f, "vgg8_w0.0625", 4, channels=1, image=28)
    generator_case(f, "cmi", 2, nz=8, ngf=4)
    f.write(os.path.join(a.out, "model_small.safetensors"))
    f = File(torch.float32, a.seed)
    for name in ("resnet50_w0.03125", "vgg11_bn_w0.03125", "mobilenet_v2_w0.05", "shufflenet_v2_x0_5_w0.125",
                 "densenet121_w0.0625", "repvgg_a0_w0.03125"):
        size = 32 if name.startswith("vgg") else 16
        model_case(f, name, 4, keep=400, half=True, every=5, image=size)
    for name in ("resnet18_w0.03125_in", "shufflenet_v2_x0_5_w0.125_in", "densenet121_w0.03125_in"):
        model_case(f, name, 2, keep=400, half=True, every=5, train=False)
    f.write(os.path.join(a.out, "model_families.safetensors"))
    # A file that must fail: one gradient is off by a thousandth of its largest element.
    f = File(torch.float32, a.seed)
    f.simple("conv3x3", "conv2d", [f.randn(1, 2, 5, 5), f.randn(2, 2, 3, 3)], padding=1)
    wrong = f.tensors["conv3x3/grad_in1"].clone()
    wrong.view(-1)[7] += 1e-3 * wrong.abs().max()
    f.tensors["conv3x3/grad_in1"] = wrong
    f.write(os.path.join(a.out, "wrong.safetensors"))
    # Two that cannot be run: an op that is not known, tensors without a case.
    f.metadata["conv3x3"] = json.dumps({"op": "fold"})
    f.write(os.path.join(a.out, "unknown_op.safetensors"))
    f.metadata = {"format": "pt"}
    f.write(os.path.join(a.out, "no_metadata.safetensors"))


if __name__ == "__main__":
    main()
