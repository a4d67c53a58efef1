"""Prints the literal numbers of tests/optim_test.cpp and tests/schedule_test.cpp.

    python tests/data/make/optimizer_numbers.py
"""
import torch
from torch.optim import SGD, Adam, AdamW
from torch.optim import lr_scheduler as sched

torch.set_default_dtype(torch.float64)


def trajectory(name, make):
    p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    opt = make([p])
    values = []
    for t in range(4):
        p.grad = torch.tensor([0.5, -1.0, 0.25 * (t - 1)]) + 0.1 * p.detach()
        opt.step()
        values += p.tolist()
    print(name, ", ".join(f"{v:.12f}" for v in values))


trajectory("sgd", lambda p: SGD(p, 0.1))
trajectory("sgd_wd", lambda p: SGD(p, 0.1, weight_decay=0.05))
trajectory("sgd_momentum", lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.05))
trajectory("sgd_dampening", lambda p: SGD(p, 0.1, momentum=0.9, dampening=0.5))
trajectory("sgd_nesterov", lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.05, nesterov=True))
trajectory("adam", lambda p: Adam(p, 0.1))
trajectory("adam_wd", lambda p: Adam(p, 0.1, betas=(0.5, 0.999), weight_decay=0.05))
trajectory("adamw", lambda p: AdamW(p, 0.1, weight_decay=0.05))


def rates(name, steps, make):
    opt = SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    s = make(opt)
    values = []
    for _ in range(steps):
        values.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    print(name, ", ".join(f"{v:.12f}" for v in values))


rates("cosine", 11, lambda o: sched.CosineAnnealingLR(o, 10, eta_min=0.01))
rates("multistep", 8, lambda o: sched.MultiStepLR(o, [2, 5, 6], gamma=0.2))
rates("onecycle", 10, lambda o: sched.OneCycleLR(o, max_lr=0.1, total_steps=11))
rates("onecycle_40", 7, lambda o: sched.OneCycleLR(o, max_lr=0.1, total_steps=8, pct_start=0.4,
                                                   div_factor=10.0, final_div_factor=100.0))
rates("warmup_cosine", 12, lambda o: sched.SequentialLR(
    o, [sched.LinearLR(o, 0.1, 1.0, 4), sched.CosineAnnealingLR(o, 8)], [4]))

p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
p.grad = torch.tensor([3.0, 4.0])
print("clip", torch.nn.utils.clip_grad_norm_([p], 2.0).item(), p.grad.tolist())
