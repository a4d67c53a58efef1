#!/usr/bin/env python3
"""Writes tests/data/formats: small files as other programs write them, and what they contain.

Needs torch, safetensors, numpy and pillow. The files are committed; run this only to change them.
Expected contents: torch_wrapped.safetensors for the PyTorch files, images.safetensors for the pictures.
"""
import io
import pathlib
import struct
import sys

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                   pathlib.Path(__file__).resolve().parent.parent / "tests/data/formats")


def torch_files():
    torch.manual_seed(1)
    base = torch.arange(24.0).reshape(4, 6)
    parameter = torch.nn.Parameter(torch.randn(2, 2))
    state = {
        "module.transposed": base.t(), "module.window": base[1:3, 2:4],
        "module.half": torch.randn(3).half(), "module.bf16": torch.randn(5).bfloat16(),
        "module.f64": torch.randn(2, dtype=torch.float64), "module.parameter": parameter,
        "module.num_batches_tracked": torch.tensor(7), "module.flags": torch.tensor([True, False]),
        "module.u8": torch.tensor([1, 255], dtype=torch.uint8),
        "module.i16": torch.tensor([-3, 300], dtype=torch.int16),
        "module.i32": torch.tensor([-70000, 70000], dtype=torch.int32), "module.empty": torch.zeros(0, 3),
    }
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    whole = {"epoch": 3, "best_prec1": 91.5, "arch": "resnet20", "amp": False, "net": state,
             "optimizer": optimizer.state_dict()}
    torch.save(whole, OUT / "torch_wrapped.pth")
    torch.save(whole, OUT / "torch_wrapped_stream.th", _use_new_zipfile_serialization=False)
    from collections import OrderedDict
    plain = OrderedDict(w=torch.tensor([1.0, 2.0]), n=torch.tensor(7))
    torch.save(plain, OUT / "torch_plain.pth")
    torch.save(plain, OUT / "torch_plain_stream.th", _use_new_zipfile_serialization=False)
    module = torch.nn.Linear(2, 2)
    torch.save(module, OUT / "torch_module.pth")
    torch.save(module, OUT / "torch_module_stream.th", _use_new_zipfile_serialization=False)
    expected = {}
    for name, value in state.items():
        value = value.detach().contiguous()
        if value.dtype == torch.float16:
            value = value.float()
        if value.dtype == torch.int16:
            value = value.int()
        expected[name] = value.clone()
    save_file(expected, OUT / "torch_wrapped.safetensors", metadata={"format": "pt"})


def python2_pickle(entries):
    """A dict of bytes keys as Python 2's cPickle, protocol 2, wrote it."""
    out = io.BytesIO()
    memo = [0]

    def put():
        out.write(b"q" + bytes([memo[0]]))
        memo[0] += 1

    def text(b):
        out.write(b"U" + bytes([len(b)]) + b if len(b) < 256 else b"T" + struct.pack("<i", len(b)) + b)
        put()

    def number(v):
        out.write(b"K" + bytes([v]) if v < 256 else b"M" + struct.pack("<H", v))

    out.write(b"\x80\x02}")
    put()
    out.write(b"(")
    for key, value in entries.items():
        text(key)
        if isinstance(value, bytes):
            text(value)
        elif isinstance(value, list):
            out.write(b"]")
            put()
            out.write(b"(")
            for v in value:
                text(v) if isinstance(v, bytes) else number(v)
            out.write(b"e")
        else:
            out.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            put()
            out.write(b"cnumpy\nndarray\n")
            put()
            out.write(b"K\x00\x85U\x01b\x87R")
            put()
            out.write(b"(K\x01")
            number(value.shape[0])
            number(value.shape[1])
            out.write(b"\x86cnumpy\ndtype\n")
            put()
            out.write(b"U\x02u1K\x00K\x01\x87R")
            put()
            out.write(b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
            text(value.tobytes())
            out.write(b"tb")
    out.write(b"u.")
    return out.getvalue()


def cifar_files():
    data = (np.arange(2 * 3072) * 7 % 251).astype(np.uint8).reshape(2, 3072)
    (OUT / "cifar10_python").write_bytes(python2_pickle(
        {b"batch_label": b"training batch 1 of 5", b"labels": [6, 9], b"data": data,
         b"filenames": [b"a.png", b"b.png"]}))
    (OUT / "cifar100_python").write_bytes(python2_pickle(
        {b"filenames": [b"a.png", b"b.png"], b"batch_label": b"test", b"fine_labels": [19, 99],
         b"coarse_labels": [11, 15], b"data": data}))
    import pickle
    loaded = pickle.loads((OUT / "cifar10_python").read_bytes(), encoding="bytes")
    assert (loaded[b"data"] == data).all() and loaded[b"labels"] == [6, 9]


def zip_files():
    a = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    with open(OUT / "stored.zip", "wb") as f:
        np.savez(f, a=a, b=np.array([1.5, -2.0], dtype=np.float16))
    with open(OUT / "deflated.zip", "wb") as f:
        np.savez_compressed(f, a=a, zeros=np.zeros((50, 40)))


def image_files():
    rng = np.random.default_rng(0)
    base = Image.fromarray(rng.integers(0, 256, (19, 23, 3), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(1.5))
    for mode in ["RGB", "L", "P", "1", "RGBA", "LA"]:
        image = base.convert(mode, palette=Image.Palette.ADAPTIVE, colors=11) if mode == "P" else \
            base.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(base.convert("L"))
        image.save(OUT / f"{mode.lower()}.png")
    for name, quality, sampling, progressive in [("q90_444", 90, 0, False), ("q75_420", 75, 2, False),
                                                 ("q40_422_progressive", 40, 1, True)]:
        base.save(OUT / f"{name}.jpg", quality=quality, subsampling=sampling, progressive=progressive)
    base.convert("L").save(OUT / "grey.jpg", quality=80)
    pictures = {}
    for path in sorted(OUT.glob("*.png")) + sorted(OUT.glob("*.jpg")):
        pictures[path.name] = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    pictures["rgb.png-grey"] = np.asarray(Image.open(OUT / "rgb.png").convert("L"))[None]
    save_file({name: torch.from_numpy(p.copy(order="C")) for name, p in pictures.items()},
              OUT / "images.safetensors")
    # No picture in images.safetensors: 16 bits, where PIL's conversion clips instead of scaling.
    wide = (np.arange(6 * 5).reshape(6, 5) * 2000).astype(np.uint16)
    Image.fromarray(wide).save(OUT / "sixteen.png")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    torch_files()
    cifar_files()
    zip_files()
    image_files()
