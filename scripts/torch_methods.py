"""The older data-free methods in plain PyTorch, written from their formulas (docs/methods.md): a student learns from
one teacher or several, whose training images nobody has. scripts/methods_vs_torch runs them beside our program.

Settings are those that `mtcki run --print-config` prints, so both sides have the same numbers in the same places;
random numbers are PyTorch's own. What docs/method-map.md states as our own choice (D4 to D6, D13) is so here, too.
"""
import copy
import itertools
import math
import os
import sys
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests", "data", "make"), os.path.join(ROOT, "scripts")]
import st_to_torch  # noqa: E402
import torch_models  # noqa: E402

MEAN, STD, CHANNELS, SIZE, CLASSES = 0.2860, 0.3530, 1, 28, 10  # of Fashion-MNIST


def normalised(x):
    return (x - MEAN) / STD


def classifier(name, weights=None):
    """A network as its authors draw it: convolutions by He's rule of the outputs, without biases at first; VGG's last
    layer small."""
    net = torch_models.classifier(name, CHANNELS, CLASSES)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.Linear) and name.startswith("vgg"):
            nn.init.normal_(m.weight, 0, 0.01)
            nn.init.zeros_(m.bias)
    if weights:
        net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in st_to_torch.load(weights).items()})
    return net.to(memory_format=torch.channels_last)  # faster on CPUs


def generator(c):
    return torch_models.generator(c.generator, c.nz, c.ngf, CHANNELS, SIZE).to(memory_format=torch.channels_last)


def dcgan_weights(net):
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(m.weight, 0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1, 0.02)
            nn.init.zeros_(m.bias)


def adam(c, *groups):
    return torch.optim.Adam(groups, lr=c.lr_g, betas=(c.beta1, c.beta2))


def shifted(x, pad, flip):
    """Every image moved by up to `pad` pixels over black, half of them mirrored."""
    n, size = len(x), x.shape[-1]
    rows = torch.randint(0, 2 * pad + 1, (n, 1)) + torch.arange(size)
    columns = torch.randint(0, 2 * pad + 1, (n, 1)) + torch.arange(size)
    if flip:
        columns = torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
    padded = F.pad(x, (pad, pad, pad, pad))
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def rolled(x, reach, flip):
    """The whole batch moved in a circle by one offset, and mirrored or not."""
    x = x.roll(torch.randint(-reach, reach + 1, (2,)).tolist(), (2, 3))
    return x.flip(3) if flip and torch.rand(()) < 0.5 else x


def cropped(x, smallest, flip):
    """Boxes of [smallest, 1] of the area with sides at most 4:3, resized to the whole image (D4, D5)."""
    n, size = len(x), x.shape[-1]
    area = size**2 * (smallest + (1 - smallest) * torch.rand(n))
    ratio = torch.exp(math.log(4 / 3) * (2 * torch.rand(n) - 1))
    sides = [(area * ratio).sqrt().clamp(max=size), (area / ratio).sqrt().clamp(max=size)]  # width, height
    if flip:
        mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    else:
        mirror = torch.ones(n)
    theta = torch.zeros(n, 2, 3)
    for axis, side in enumerate(sides):
        begin = torch.rand(n) * (size - side)
        theta[:, axis, axis] = side / size * (mirror if axis == 0 else 1)
        theta[:, axis, 2] = (2 * begin + side) / size - 1
    return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), padding_mode="border",
                         align_corners=False)


class Teacher:
    """A frozen network; a pass also gives the inputs of its batch norms and the feature before the last layer."""

    def __init__(self, net):
        self.net = net.eval().requires_grad_(False)
        self.norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        self.last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
        self.ema, self.inputs = None, {}
        for m in self.norms + [self.last]:
            m.register_forward_pre_hook(lambda m, args: self.inputs.__setitem__(m, args[0]))

    def __call__(self, images):
        logits = self.net(normalised(images))
        return SimpleNamespace(logits=logits, feature=self.inputs[self.last],
                               norms=[self.inputs[m] for m in self.norms])

    def statistics_loss(self, view, momentum):
        """DeepInversion's; with momentum of the statistics blended with those of earlier batches (Fast)."""
        total, self.seen = 0, []
        for i, (norm, x) in enumerate(zip(self.norms, view.norms)):
            now = [x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)]
            self.seen.append([s.detach() for s in now])
            if self.ema:
                now = [momentum * old + (1 - momentum) * new for old, new in zip(self.ema[i], now)]
            total = total + (now[0] - norm.running_mean).norm() + (now[1] - norm.running_var).norm()
        return total

    def remember(self, momentum):
        """Behind a batch: its last statistics."""
        self.ema = self.seen if not self.ema else [
            [momentum * old + (1 - momentum) * new for old, new in zip(a, b)] for a, b in zip(self.ema, self.seen)]


class Pool:
    """All images so far, in bytes, in shuffled passes of whole batches."""

    def __init__(self):
        self.images = torch.zeros(0, CHANNELS, SIZE, SIZE, dtype=torch.uint8)

    def add(self, images):
        self.images = torch.cat([self.images, (images * 255).to(torch.uint8)])

    def batches(self, count, batch_size):
        whole = max(1, len(self.images) // batch_size)
        for number in range(count):
            if number % whole == 0:
                order = torch.randperm(len(self.images))
            rows = order[number % whole * batch_size:][:batch_size]
            yield self.images[rows] / 255


class Run:
    def __init__(self, config, teachers, student):
        self.synthesis, self.distill, self.rounds = (SimpleNamespace(**config[k])
                                                     for k in ("synthesis", "distill", "rounds"))
        self.teachers, self.student = teachers, student
        d = self.distill
        self.steps, self.done = d.epochs * d.steps_per_epoch, 0
        self.optimizer = torch.optim.SGD(student.parameters(), d.lr, d.momentum, weight_decay=d.weight_decay)

    def view(self, x):
        """What the teachers are shown in a step of synthesis."""
        c = self.synthesis
        return (rolled if c.views == "roll" else shifted)(x, c.pad, c.flip) if c.pad or c.flip else x

    def ask(self, images):
        """Views of all teachers, and the mean of their logits."""
        views = [t(images) for t in self.teachers]
        return views, sum(v.logits for v in views) / len(views)

    def student_step(self, images):
        with torch.no_grad():
            target = self.ask(images)[1]
        logits = self.student.train()(normalised(images))
        self.descend(self.distillation(target, logits))

    def distillation(self, target, logits):
        t = self.distill.temperature
        return self.distill.kd * t * t * divergence(target / t, logits / t).mean()

    def descend(self, loss):
        d = self.distill
        rate = 0.5 * (1 + math.cos(math.pi * self.done / self.steps)) if d.schedule == "cosine" else 1
        self.optimizer.param_groups[0]["lr"] = d.min_lr + (d.lr - d.min_lr) * rate
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1

    def learn(self, make_batch):
        """The student learns from a pool that grows at the beginning of every round, if there are rounds."""
        pool, c, d, r = Pool(), self.synthesis, self.distill, self.rounds
        for _ in range(c.batches):
            pool.add(make_batch(None))
        per_round = d.steps_per_epoch // r.per_epoch if r.per_epoch else self.steps
        for _ in range(self.steps // per_round):
            for _ in range(r.batches if r.per_epoch else 0):
                pool.add(make_batch(self.student.eval()))
            for images in pool.batches(per_round, d.batch_size):
                self.student_step(shifted(images, d.pad, d.flip))

    def invert(self, labels, generate, optimizers, student=None, prior=lambda x, seen, views: 0,
               after_backward=lambda: None, when_best=lambda: None):
        """The images of the step of a batch with the lowest loss (best = "last": the last)."""
        c, best, least = self.synthesis, None, math.inf
        for _ in range(c.g_steps):
            x = generate()
            seen = self.view(x)
            views, mean = self.ask(seen)
            loss = c.cls * F.cross_entropy(mean, labels) + prior(x, seen, views)
            for teacher, view in zip(self.teachers, views):
                loss = loss + c.bn / len(views) * teacher.statistics_loss(view, c.bn_mmt)
            if student and c.adv:
                theirs = student(normalised(seen))
                counts = theirs.argmax(1) == mean.argmax(1)
                if c.adv_mode == "kl-disagree":
                    counts = ~counts
                loss = loss - c.adv * (counts * divergence(mean, theirs)).mean()
            if loss.item() < least or c.best == "last":
                best, least = x.detach(), loss.item()
                when_best()
            for o in optimizers:
                o.zero_grad()
            loss.backward()
            after_backward()
            for o in optimizers:
                o.step()
        for teacher in self.teachers:
            if c.bn_mmt:
                teacher.remember(c.bn_mmt)
        return best


def divergence(of, to):
    """KL(softmax of || softmax to) of every row."""
    return (of.softmax(1) * (of.log_softmax(1) - to.log_softmax(1))).sum(1)


def uniform_labels(c):
    return torch.randint(0, CLASSES, (c.batch_size,)).sort().values


def deepinversion(run):
    c = run.synthesis
    low, high = -MEAN / STD, (1 - MEAN) / STD

    def total_variation(x, seen, views):
        pairs = [(x[..., :-1], x[..., 1:]), (x[..., :-1, :], x[..., 1:, :]),
                 (x[..., :-1, :-1], x[..., 1:, 1:]), (x[..., :-1, 1:], x[..., 1:, :-1])]
        return c.tv * sum((a - b).abs().mean() for a, b in pairs)

    def make_batch(student):
        pixels = torch.randn(c.batch_size, CHANNELS, SIZE, SIZE, requires_grad=True)  # of normalised images
        optimizer = adam(c, {"params": [pixels]})
        optimizer.register_step_post_hook(lambda *_: pixels.data.clamp_(low, high))
        return run.invert(uniform_labels(c), lambda: pixels * STD + MEAN, [optimizer],
                          prior=total_variation).clamp(0, 1)
    run.learn(make_batch)


def cmi(run):
    c, teacher = run.synthesis, run.teachers[0]
    width = sum(m.num_features for m in teacher.norms)
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, c.head_dim))
    head_optimizer = torch.optim.Adam(head.parameters(), lr=c.lr_g)
    bank = torch.zeros(0, 2, width)  # local and global features of the batches so far

    def features(view):
        return torch.cat([x.mean((2, 3)) for x in view.norms], 1)

    def pair(x, view):
        return features(teacher(cropped(x, c.min_crop, c.flip))), features(view)

    def contrast(x, seen, views):
        local, whole = pair(x, views[0])
        past = bank[torch.randperm(len(bank))[:c.bank_draw]]
        u = F.normalize(head(torch.cat([local, past[:, 0]])), dim=1)
        v = F.normalize(head(torch.cat([whole, past[:, 1]])), dim=1).detach()
        rows = F.cross_entropy(u @ v.T / c.cr_tau, torch.arange(len(u)), reduction="none")
        own, old = rows[:len(local)], rows[len(local):]
        return c.cr * (own.mean() + (old.mean() if len(old) else 0))

    def make_batch(student):
        nonlocal bank
        g, z = generator(c), torch.randn(c.batch_size, c.nz, requires_grad=True)
        dcgan_weights(g)
        best = run.invert(uniform_labels(c), lambda: g(z), [adam(c, {"params": [*g.parameters(), z]}), head_optimizer],
                          student, contrast)
        with torch.no_grad():
            now = pair(best, teacher(shifted(best, c.pad, c.flip)))
        bank = torch.cat([bank, torch.stack(now, 1)])[-c.bank_size:]
        return best
    run.learn(make_batch)


def fast(run):
    """First-order meta-learning: the gradients of a batch's steps also move what the next batch starts from."""
    c, number = run.synthesis, itertools.count()
    theta = generator(c)
    outer = torch.optim.Adam(theta.parameters(), lr=c.lr_g * c.g_steps, betas=(c.beta1, c.beta2))

    def make_batch(student):
        if next(number) == c.reset_first > 0:
            for layer in (theta.l1[0], theta.conv_blocks[0]):
                nn.init.normal_(layer.weight, 0, 0.02)
                nn.init.zeros_(layer.bias)
        inner, z = copy.deepcopy(theta).train(), torch.randn(c.batch_size, c.nz, requires_grad=True)
        optimizer = adam(c, {"params": inner.parameters()}, {"params": [z], "lr": c.lr_z})
        outer.zero_grad()

        def add_gradients():
            for p, q in zip(theta.parameters(), inner.parameters()):
                p.grad = q.grad.clone() if p.grad is None else p.grad + q.grad
        best = run.invert(uniform_labels(c), lambda: inner(z), [optimizer], student, after_backward=add_gradients)
        outer.step()
        return best
    run.learn(make_batch)


class NoisyGenerator(nn.Module):
    """NAYER: images from the vectors of their classes; every K rows of a batch go through a layer of their own."""

    def __init__(self, c, vectors):
        super().__init__()
        self.vectors, width = vectors, vectors.shape[1]
        self.norm = nn.BatchNorm1d(width)
        self.noisy = nn.ModuleList(nn.Linear(width, c.nz) for _ in range(math.ceil(c.batch_size / CLASSES)))
        self.body = generator(c)

    def redraw(self):
        for layer in self.noisy:
            nn.init.normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, labels):
        rows = self.norm(self.vectors[labels]).split(CLASSES)
        return self.body(torch.cat([layer(x) for layer, x in zip(self.noisy, rows)]))


def nayer(run):
    c, number, g = run.synthesis, itertools.count(), None
    vectors = torch.cat([t.last.weight for t in run.teachers], 1)

    def make_batch(student):
        nonlocal g
        n = next(number)
        if n % (c.g_life_first if n < c.batches else c.g_life) == 0:
            g = NoisyGenerator(c, vectors)
        g.redraw()
        labels = torch.arange(c.batch_size) % CLASSES
        rest = c.batch_size % CLASSES
        labels[c.batch_size - rest:] = torch.randint(0, CLASSES, (rest,))
        return run.invert(labels, lambda: g(labels), [adam(c, {"params": g.parameters()})], student)
    run.learn(make_batch)


def dense(run):
    """Several teachers, whose mean decides."""
    c = run.synthesis

    def make_batch(student):
        g, z = generator(c), torch.randn(c.batch_size, c.nz, requires_grad=True)
        dcgan_weights(g)
        return run.invert(uniform_labels(c), lambda: g(z), [adam(c, {"params": [*g.parameters(), z]})], student)
    run.learn(make_batch)


def sampled(run):
    """DAFL, ZSKT, DFQ: a generator that lives on; after every step of it the student takes some on new samples."""
    c, d, teacher = run.synthesis, run.distill, run.teachers[0]
    g = generator(c)
    optimizer = adam(c, {"params": g.parameters()})
    for step in range(run.steps):
        if step % (d.steps_per_epoch // run.rounds.per_epoch) == 0:
            x = run.view(g.train()(torch.randn(c.batch_size, c.nz)))
            view = teacher(x)
            p = view.logits.softmax(1).mean(0)
            loss = (c.one_hot * F.cross_entropy(view.logits, view.logits.argmax(1))
                    - c.activation * view.feature.abs().mean() + c.balance * (p * p.log()).sum()
                    - c.adv_kl * divergence(view.logits, run.student.eval()(normalised(x))).mean())
            if c.bn:
                loss = loss + c.bn * teacher.statistics_loss(view, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            x = g.eval()(torch.randn(d.batch_size, c.nz))
        run.student_step(x)


def maps_of_vgg(net, x):
    """The inputs of the blocks behind the first, the last map, and the logits."""
    maps = []
    for i in range(5):
        x = F.relu(getattr(net, f"block{i}")(x))
        x = F.max_pool2d(x, 2) if i < 3 else x
        maps.append(x)
    return maps[:4], x, net.classifier(x.mean((2, 3)))


def regions(maps, logits, classes):
    """What speaks for the class, of the last map of every size; the gradients are constants."""
    at = list({m.shape[-1]: m for m in maps}.values())
    gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), at, retain_graph=True)
    return [(a * g.mean((2, 3), keepdim=True)).sum(1) for a, g in zip(at, gradients)]


def class_activation(net, last):
    return torch.einsum("kc,nchw->nkhw", net.classifier.weight.detach(), last)


def spaceshipnet(run):
    """The student is shown what the generator as it is makes of kept maps, whose channels two images exchange."""
    c, d, teacher, student = run.synthesis, run.distill, run.teachers[0].net, run.student
    g = generator(c)
    layers = list(g.conv_blocks)
    parts = [nn.Sequential(*layers[a:b]) for a, b in ((0, 1), (1, 5), (5, 9), (9, 11))]  # maps between
    pool, now = [[], [], []], []
    labels = torch.arange(c.batch_size) % CLASSES

    def generate(z):
        now.clear()
        x = g.l1(z).view(-1, g.start, g.side, g.side)
        for part in parts:
            x = part(x)
            now.append(x.detach())
        return x

    def make_batch():
        best = {}
        z = torch.randn(c.batch_size, c.nz)
        g.train()
        run.invert(labels, lambda: generate(z), [adam(c, {"params": g.parameters()})],
                   when_best=lambda: best.update(enumerate(now)))
        for level in range(3):
            pool[level].append(best[level])

    def show(level, maps):
        if torch.rand(()) < c.exchange:
            half = torch.rand(maps.shape[:2]).argsort(1) < maps.shape[1] // 2
            maps = torch.where(half[:, :, None, None], maps, maps.flip(0))
        g.eval()
        for part in parts[level + 1:]:
            maps = part(maps)
        return shifted(maps, d.pad, d.flip)

    def student_step(x):
        maps_t, last_t, target = maps_of_vgg(teacher, normalised(x).requires_grad_())
        maps_s, last_s, logits = maps_of_vgg(student.train(), normalised(x))
        classes = target.argmax(1)
        loss = run.distillation(target.detach(), logits)
        loss = loss + d.cam * F.mse_loss(class_activation(student, last_s), class_activation(teacher, last_t).detach())
        for a, b in zip(regions(maps_s, logits, classes), regions(maps_t, target, classes)):
            loss = loss + d.grad_cam * F.mse_loss(a, b.detach())
        run.descend(loss)

    per_round = d.steps_per_epoch // run.rounds.per_epoch
    for _ in range(run.steps // per_round):
        for _ in range(run.rounds.batches):
            make_batch()
        kept = [torch.cat(maps) for maps in pool]
        whole = len(kept[0]) // d.batch_size
        for number in range(per_round):
            if number % whole == 0:
                order = torch.randperm(len(kept[0]))
            rows = order[number % whole * d.batch_size:][:d.batch_size]
            level = torch.randint(0, 3, ()).item()
            with torch.no_grad():
                x = show(level, kept[level][rows])
            student_step(x)


METHODS = {"deepinversion": deepinversion, "dafl": sampled, "zskt": sampled, "dfq": sampled, "cmi": cmi, "fast": fast,
           "nayer": nayer, "dense": dense, "spaceshipnet": spaceshipnet}
