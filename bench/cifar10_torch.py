#!/usr/bin/env python3
"""The recipe of scripts/cifar10_vs_torch in PyTorch: a classifier on CIFAR-10, and the accuracy of a weight file.

    cifar10_torch.py train --data DIR --model wrn16_1 --epochs 3 --seed 0      prints {"top1": ...}
    cifar10_torch.py eval  --data DIR --model wrn16_1 --weights W.safetensors  prints {"top1": ...}

SGD 0.1 with Nesterov momentum 0.9 and weight decay 5e-4, batch 128, one-cycle schedule per step, pad 4 + crop +
mirror, label = class. DIR holds the binary or the Python version.
"""
import argparse
import json
import os
import pickle
import sys

import numpy as np
import torch
import torch.nn.functional as F

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests", "data", "make"), os.path.join(ROOT, "scripts")]
import st_to_torch  # noqa: E402
import torch_models  # noqa: E402

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def load(folder, train):
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    images, labels = [], []
    for name in names:
        path = os.path.join(folder, name)
        if os.path.exists(path + ".bin"):
            rows = np.fromfile(path + ".bin", np.uint8).reshape(-1, 3073)
            images.append(rows[:, 1:])
            labels.append(rows[:, 0])
        else:
            with open(path, "rb") as f:
                batch = pickle.load(f, encoding="bytes")
            images.append(batch[b"data"])
            labels.append(np.array(batch[b"labels"]))
    x = torch.from_numpy(np.concatenate(images).reshape(-1, 3, 32, 32).copy())
    return x, torch.from_numpy(np.concatenate(labels).astype(np.int64))


def normalised(x):
    return (x.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def augmented(x):
    """Zeros in image space, as the tool pads: before the normalisation."""
    n = len(x)
    padded = F.pad(x, (4, 4, 4, 4))
    rows = torch.randint(0, 9, (n, 1)) + torch.arange(32)
    columns = torch.randint(0, 9, (n, 1)) + torch.arange(32)
    out = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    flip = torch.rand(n) < 0.5
    out[flip] = out[flip].flip(3)
    return out


def top1(net, x, y):
    net.eval()
    with torch.no_grad():
        hits = sum((net(normalised(x[i:i + 500])).argmax(1) == y[i:i + 500]).sum().item() for i in range(0, len(x), 500))
    return 100.0 * hits / len(x)


def fit(net, data, epochs):
    """The recipe above; returns the accuracy on the test images."""
    x, y = load(data, True)
    test = load(data, False)
    per_epoch = len(x) // 128
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs * per_epoch, cycle_momentum=False)
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(x))
        for i in range(per_epoch):
            rows = order[i * 128:(i + 1) * 128]
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(net(normalised(augmented(x[rows]))), y[rows]).backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: {top1(net, *test):.2f} %", file=sys.stderr, flush=True)
    return top1(net, *test)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "eval"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="wrn16_1")
    parser.add_argument("--weights")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    net = torch_models.classifier(a.model)
    if a.what == "eval":
        test_x, test_y = load(a.data, False)
        state = {k: torch.from_numpy(v.copy()) for k, v in st_to_torch.load(a.weights).items()}
        net.load_state_dict(state, strict=True)
        print(json.dumps({"top1": top1(net, test_x, test_y), "n": len(test_x)}))
        return
    for module in net.modules():  # the wide ResNet's own initialisation
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.bias)
    print(json.dumps({"top1": fit(net, a.data, a.epochs), "n": 10000}))


if __name__ == "__main__":
    main()
