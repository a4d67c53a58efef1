"""Independent PyTorch definitions of the networks, with the names of the field's checkpoints.

They serve to make golden data only: key lists, gradients, losses. The project does not use them.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F


class BasicBlock(nn.Module):
    def __init__(self, cin, cout, stride, form):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.stride, self.pad = stride, None
        self.side = None
        if stride != 1 or cin != cout:
            if form == "padded":
                self.pad = cout // 4
            else:
                side = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
                setattr(self, form, side)
                self.side = form

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad is not None:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        elif self.side:
            x = getattr(self, self.side)(x)
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, stem, widths, blocks, form, head, channels, classes, block=BasicBlock):
        super().__init__()
        self.pool = nn.Identity()
        self.conv1 = nn.Conv2d(channels, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        cin, self.stages, self.head = stem, len(widths), head
        for s, (w, n) in enumerate(zip(widths, blocks)):
            layer = []
            for b in range(n):
                layer.append(block(cin, w, 2 if s > 0 and b == 0 else 1, form))
                cin = w if block is BasicBlock else 4 * w
            setattr(self, f"layer{s + 1}", nn.Sequential(*layer))
        setattr(self, head, nn.Linear(cin, classes))

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        for s in range(self.stages):
            x = getattr(self, f"layer{s + 1}")(x)
        return getattr(self, self.head)(x.mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        if cin != cout:
            self.convShortcut = nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x):
        a = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return y + (self.convShortcut(a) if hasattr(self, "convShortcut") else x)


class Level(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, depth, k, channels, classes):
        super().__init__()
        n = (depth - 4) // 6
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        cin = 16
        for s, w in enumerate((16 * k, 32 * k, 64 * k)):
            blocks = [WideBlock(cin if b == 0 else w, w, 2 if s and b == 0 else 1) for b in range(n)]
            setattr(self, f"block{s + 1}", Level(*blocks))
            cin = w
        self.bn1 = nn.BatchNorm2d(cin)
        self.fc = nn.Linear(cin, classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, config, channels, classes):
        super().__init__()
        cin = channels
        for i, widths in enumerate(config):
            layers = []
            for w in widths:
                layers += [nn.Conv2d(cin, w, 3, 1, 1), nn.BatchNorm2d(w), nn.ReLU()]
                cin = w
            setattr(self, f"block{i}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(cin, classes)

    def forward(self, x):
        size = x.shape[2]
        for i in range(5):
            x = F.relu(getattr(self, f"block{i}")(x))
            if i < 3 or (i == 3 and size == 64):
                x = F.max_pool2d(x, 2)
        return self.classifier(x.mean((2, 3)))


VGGS = {
    "vgg8": [[64], [128], [256], [512], [512]],
    "vgg11": [[64], [128], [256, 256], [512, 512], [512, 512]],
    "vgg13": [[64, 64], [128, 128], [256, 256], [512, 512], [512, 512]],
    "vgg16": [[64, 64], [128, 128], [256] * 3, [512] * 3, [512] * 3],
}


class Bottleneck(nn.Module):
    def __init__(self, cin, width, stride, form):
        super().__init__()
        for i, (a, b, k, s) in enumerate([(cin, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]):
            setattr(self, f"conv{i + 1}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(b))
        self.side = form if stride != 1 or cin != 4 * width else None
        if self.side:
            setattr(self, form, nn.Sequential(nn.Conv2d(cin, 4 * width, 1, stride, bias=False),
                                              nn.BatchNorm2d(4 * width)))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (getattr(self, self.side)(x) if self.side else x))


class RepVGGBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(cin) if cin == cout and stride == 1 else None
        for name, kernel in (("rbr_dense", 3), ("rbr_1x1", 1)):
            part = nn.Sequential()
            part.add_module("conv", nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False))
            part.add_module("bn", nn.BatchNorm2d(cout))
            setattr(self, name, part)

    def forward(self, x):
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return F.relu(y if self.rbr_identity is None else y + self.rbr_identity(x))


class RepVGG(nn.Module):
    def __init__(self, widths, first, channels, classes):
        super().__init__()
        self.stage0 = RepVGGBlock(channels, widths[0], first)
        for s, blocks in enumerate([2, 4, 14, 1]):
            strides = [first if s == 0 else 2] + [1] * (blocks - 1)
            setattr(self, f"stage{s + 1}", nn.Sequential(*[
                RepVGGBlock(widths[s + (b > 0)], widths[s + 1], stride) for b, stride in enumerate(strides)]))
        self.linear = nn.Linear(widths[4], classes)

    def forward(self, x):
        for s in range(5):
            x = getattr(self, f"stage{s}")(x)
        return self.linear(x.mean((2, 3)))


def of_torchvision(base, scale, stem, channels, classes):
    """torchvision's networks; for small images with the strides and stems of the CIFAR zoos."""
    import torchvision.models as tv
    from torchvision.models.vgg import cfgs, make_layers
    small = stem != "in"
    base, fc, hidden = base.partition("_fc")

    def first(conv, stride):
        return nn.Conv2d(channels, conv.out_channels, conv.kernel_size, stride, conv.padding, bias=False)

    if base.startswith("resnet"):
        if scale == 1:
            net = getattr(tv, base)(num_classes=classes)
        else:
            net = ResNet(round(64 * scale), [round(w * scale) for w in (64, 128, 256, 512)],
                         {"18": [2, 2, 2, 2]}.get(base[6:], [3, 4, 6, 3]), "downsample", "fc", channels, classes,
                         Bottleneck if base == "resnet50" else BasicBlock)
            net.pool = nn.MaxPool2d(3, 2, 1)
        if small:
            net.conv1 = nn.Conv2d(channels, net.conv1.out_channels, 3, 1, 1, bias=False)
        else:
            net.conv1 = nn.Conv2d(channels, net.conv1.out_channels, 7, 2, 3, bias=False)
    elif base.endswith("_bn"):
        cfg = {"11": "A", "13": "B", "16": "D", "19": "E"}[base[3:5]]
        net = tv.VGG(make_layers([w if w == "M" else round(w * scale) for w in cfgs[cfg]], batch_norm=True), 10,
                     init_weights=False)
        wide = round(512 * scale)
        if not small:
            wide, hidden = 49 * wide, 4096
        if small:
            net.avgpool, net.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(wide, classes)
        if fc or not small:
            inner = round(int(hidden or 512) * scale)
            net.classifier = nn.Sequential(nn.Linear(wide, inner), nn.ReLU(), nn.Identity(), nn.Linear(inner, inner),
                                           nn.ReLU(), nn.Identity(), nn.Linear(inner, classes))
        if channels != 3:
            net.features[0] = nn.Conv2d(channels, net.features[0].out_channels, 3, 1, 1)
    elif base == "mobilenet_v2":
        rows = [[1, 16, 1, 1], [6, 24, 2, 1 if small else 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1],
                [6, 160, 3, 2], [6, 320, 1, 1]]
        net = tv.MobileNetV2(classes, scale, rows, dropout=0.0)
        net.features[0][0] = first(net.features[0][0], 1 if small else 2)
    elif base.startswith("shufflenet_v2"):
        widths = {"x0_5": [24, 48, 96, 192, 1024], "x1_0": [24, 116, 232, 464, 1024]}[base[-4:]]
        net = tv.ShuffleNetV2([4, 8, 4], [2 * round(w * scale / 2) for w in widths], classes)
        net.conv1[0] = first(net.conv1[0], 1 if small else 2)
        if small:
            net.maxpool = nn.Identity()
    else:
        net = tv.DenseNet(round(32 * scale), (6, 12, 24, 16), round(64 * scale), num_classes=classes)
        if small:
            net.features.conv0 = nn.Conv2d(channels, round(64 * scale), 3, 1, 1, bias=False)
        if stem is None:
            net.features.pool0 = nn.Identity()
    return net


def classifier(name, channels=3, classes=10):
    base, stem = name, None
    for suffix in ("_pool", "_in"):
        if name.endswith(suffix) and (suffix == "_in" or not name.startswith("vgg")):
            base, stem = name[:-len(suffix)], suffix[1:]
    base, _, factor = base.partition("_w")
    scale = float(factor or 1)
    if base.startswith("repvgg"):
        return RepVGG([max(1, round(w * scale)) for w in (48, 48, 96, 192, 1280)], 2 if stem == "in" else 1, channels,
                      classes)
    if stem or "_bn" in base or base.split("_")[0] in ("mobilenet", "shufflenet", "densenet121"):
        return of_torchvision(base, scale, stem, channels, classes)
    if base == "resnet50":
        return ResNet(round(64 * scale), [round(w * scale) for w in (64, 128, 256, 512)], [3, 4, 6, 3], "shortcut",
                      "linear", channels, classes, Bottleneck)
    if name.startswith("wrn"):
        depth, k = name[3:].split("_")
        return WideResNet(int(depth), int(k), channels, classes)
    if name.startswith("vgg"):
        base, _, factor = name.partition("_w")
        config = [[round(w * float(factor or 1)) for w in block] for block in VGGS[base]]
        return VGG(config, channels, classes)
    if name in ("resnet18", "resnet34"):
        blocks = [2, 2, 2, 2] if name == "resnet18" else [3, 4, 6, 3]
        return ResNet(64, [64, 128, 256, 512], blocks, "shortcut", "linear", channels, classes)
    if name.endswith("x4"):
        n = (int(name[6:-2]) - 2) // 6
        return ResNet(32, [64, 128, 256], [n] * 3, "downsample", "fc", channels, classes)
    plain = name.endswith("_a")
    n = (int(name[6:].removesuffix("_a")) - 2) // 6
    form, head = ("padded", "linear") if plain else ("downsample", "fc")
    return ResNet(16, [16, 32, 64], [n] * 3, form, head, channels, classes)


class Generator(nn.Module):
    def __init__(self, start, nz, ngf, channels, size):
        super().__init__()
        self.start, self.side = start, size // 4
        self.l1 = nn.Sequential(nn.Linear(nz, start * self.side**2))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(start), nn.Upsample(scale_factor=2),
            nn.Conv2d(start, 2 * ngf, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * ngf), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * ngf, ngf, 3, 1, 1, bias=False), nn.BatchNorm2d(ngf), nn.LeakyReLU(0.2),
            nn.Conv2d(ngf, channels, 3, 1, 1), nn.Sigmoid())

    def forward(self, z):
        return self.conv_blocks(self.l1(z).view(-1, self.start, self.side, self.side))


class DCGAN(nn.Module):
    def __init__(self, nz, ngf, channels, size):
        super().__init__()
        deep = size % 16 == 0
        widths = [8 * ngf, 4 * ngf, 2 * ngf, ngf, ngf] if deep else [8 * ngf, 2 * ngf, ngf]
        self.start, self.side = widths[0], size // (16 if deep else 4)
        self.project = nn.Sequential(nn.Flatten(), nn.Linear(nz, self.start * self.side**2))
        layers = [nn.BatchNorm2d(self.start)]
        for a, b in zip(widths, widths[1:]):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(ngf, channels, 3, 1, 1), nn.Sigmoid()]
        self.main = nn.Sequential(*layers)

    def forward(self, z):
        return self.main(self.project(z).view(-1, self.start, self.side, self.side))


def generator(name, nz=256, ngf=64, channels=3, size=32):
    if name == "dcgan":
        return DCGAN(nz, ngf, channels, size)
    return Generator((2 if name == "cmi" else 4) * ngf, nz, ngf, channels, size)
