"""Trains a small network on Fashion-MNIST with PyTorch and saves it as users do: a checkpoint dict with
epoch, accuracy and a DataParallel state dict. For examples/11_load_torch_teacher.

    torch_teacher.py DIR_OF_FASHION_MNIST OUT.pth
"""
import gzip
import sys

import numpy as np
import torch
import torch.nn.functional as F

import torch_models


def read(name, skip):
    return torch.from_numpy(np.frombuffer(gzip.open(f"{sys.argv[1]}/{name}-ubyte.gz").read(), np.uint8, offset=skip).copy())


def split(name):
    x = read(name + "-images-idx3", 16).view(-1, 1, 28, 28)
    return (x / 255.0 - 0.2860) / 0.3530, read(name + "-labels-idx1", 8).long()


torch.manual_seed(0)
net = torch_models.classifier("vgg8_w0.0625", channels=1)
x, y = split("train")
test_x, test_y = split("t10k")
epochs, batch = 3, 128
steps = epochs * (len(x) // batch)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps)
for epoch in range(epochs):
    order = torch.randperm(len(x))
    for i in range(len(x) // batch):
        rows = order[i * batch:(i + 1) * batch]
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
net.eval()
with torch.no_grad():
    correct = sum((net(test_x[i:i + 500]).argmax(1) == test_y[i:i + 500]).sum().item() for i in range(0, 10000, 500))
print(f"{correct / 100:.2f} %")
state = {"module." + name: value for name, value in net.state_dict().items()}
torch.save({"epoch": epochs, "best_acc1": correct / 100, "state_dict": state}, sys.argv[2])
