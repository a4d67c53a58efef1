#!/usr/bin/env python3
"""Reads a .safetensors file with NumPy alone, or converts it to a PyTorch state dict.

    st_to_torch.py FILE.safetensors                 lists names, types, shapes
    st_to_torch.py FILE.safetensors OUT.pth         writes torch.save(state dict)   (needs torch)

As a module: load(path) -> {name: numpy array}; BF16 comes as float32.
"""
import json
import sys

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1",
         "I8": "i1", "BOOL": "?", "BF16": "<u2"}


def load(path):
    blob = open(path, "rb").read()
    start = 8 + int.from_bytes(blob[:8], "little")
    out = {}
    for name, entry in json.loads(blob[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = np.frombuffer(blob[start + begin:start + end], TYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        out[name] = array.reshape(entry["shape"])
    return out


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    state = load(sys.argv[1])
    if len(sys.argv) == 2:
        for name, array in state.items():
            print(f"{name:50} {str(array.dtype):8} {list(array.shape)}")
    else:
        import torch
        torch.save({name: torch.from_numpy(array.copy()) for name, array in state.items()}, sys.argv[2])
        print(f"{sys.argv[2]}: {len(state)} tensors")
