"""CIFAR batches loaded and pickled again, as mirrors and scripts do. python cifar_repickled.py OUT
NumPy's module is numpy._core since 2.0; both names are in the files (protocol 5 written for the older one)."""
import pickle, sys
import numpy as np
out = sys.argv[1]
data = (np.arange(2 * 3072) * 7 % 251).astype(np.uint8).reshape(2, 3072)
batch = {"data": data, "labels": [6, 9], "batch_label": "training batch 1 of 5", "filenames": ["a.png", "b.png"]}
def put(name, value, protocol): open(f"{out}/{name}", "wb").write(pickle.dumps(value, protocol))
put("cifar10_protocol0", batch, 0)
put("cifar10_protocol4", batch, 4)
open(f"{out}/cifar10_protocol5", "wb").write(pickle.dumps(batch, 5).replace(b"\x13numpy._core.numeric", b"\x12numpy.core.numeric"))
put("cifar10_numpy_labels", {**batch, "labels": list(np.array([6, 9]))}, 2)
put("cifar10_images", {**batch, "data": data.reshape(2, 3, 32, 32), "labels": np.array([6, 9], dtype=np.uint8)}, 4)
put("cifar10_channels_last", {**batch, "data": np.ascontiguousarray(data.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1))}, 4)
