"""The networks of the comparisons as PyTorch users write them: the peers of nn/models/, with the same layers and sizes.

Written the way that is fastest and smallest in PyTorch: in-place activations, functional ReLU.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F


class WideBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(cout), nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.shortcut = None if cin == cout else nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x):
        a = F.relu(self.bn1(x), inplace=True)
        y = self.conv2(F.relu(self.bn2(self.conv1(a)), inplace=True))
        y += x if self.shortcut is None else self.shortcut(a)
        return y


class WideResNet(nn.Module):
    def __init__(self, depth, k, classes=10):
        super().__init__()
        self.conv1, cin, blocks = nn.Conv2d(3, 16, 3, 1, 1, bias=False), 16, []
        for stage, width in enumerate((16 * k, 32 * k, 64 * k)):
            for block in range((depth - 4) // 6):
                blocks.append(WideBlock(cin, width, 2 if stage and not block else 1))
                cin = width
        self.blocks, self.bn, self.fc = nn.Sequential(*blocks), nn.BatchNorm2d(cin), nn.Linear(cin, classes)

    def forward(self, x):
        x = F.relu(self.bn(self.blocks(self.conv1(x))), inplace=True)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class BasicBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.shortcut = nn.Identity() if stride == 1 and cin == cout else nn.Sequential(
            nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    def __init__(self, counts, classes=10):
        super().__init__()
        self.conv1, self.bn1, cin, blocks = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), 64, []
        for stage, count in enumerate(counts):
            for block in range(count):
                blocks.append(BasicBlock(cin, 64 << stage, 2 if stage and not block else 1))
                cin = 64 << stage
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(cin, classes)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class VGG(nn.Module):
    def __init__(self, config, classes=10):
        super().__init__()
        layers, cin = [], 3
        for i, widths in enumerate(config):
            for width in widths:
                layers += [nn.Conv2d(cin, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                cin = width
            if i < 3:
                layers.append(nn.MaxPool2d(2, 2))
        self.features, self.fc = nn.Sequential(*layers), nn.Linear(cin, classes)

    def forward(self, x):
        return self.fc(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Generator(nn.Module):
    def __init__(self, nz=256, ngf=64):
        super().__init__()
        self.width, self.l1, self.memory_format = 2 * ngf, nn.Linear(nz, 2 * ngf * 64), torch.contiguous_format
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * ngf), nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * ngf, 2 * ngf, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * ngf), nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * ngf, ngf, 3, 1, 1, bias=False), nn.BatchNorm2d(ngf), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ngf, 3, 3, 1, 1), nn.Sigmoid())

    def forward(self, z):
        return self.body(self.l1(z).view(-1, self.width, 8, 8).to(memory_format=self.memory_format))


def of_torchvision(name, classes=10):
    """Torchvision's, as they are for images of 32x32: stride 1 in the first convolutions, no pool after them."""
    from torchvision import models
    if name == "mobilenet_v2":
        net = models.mobilenet_v2(num_classes=classes, dropout=0.0, inverted_residual_setting=[
            [1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]])
        net.features[0][0].stride = (1, 1)
    else:
        net = getattr(models, name)(num_classes=classes)
        net.conv1[0].stride, net.maxpool = (1, 1), nn.Identity()
    return net


def make(name):
    if name.startswith("wrn"):
        depth, k = name[3:].split("_")
        return WideResNet(int(depth), int(k))
    if name in ("resnet18", "resnet34"):
        return ResNet([2, 2, 2, 2] if name == "resnet18" else [3, 4, 6, 3])
    if name == "vgg11":
        return VGG([[64], [128], [256, 256], [512, 512], [512, 512]])
    if name == "mobilenet_v2" or name.startswith("shufflenet_v2"):
        return of_torchvision(name)
    raise ValueError(f"unknown model '{name}'")
