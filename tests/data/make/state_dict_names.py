"""Writes tests/data/state_dict_names/*.txt: one line per key, its shape beside it.

    python tests/data/make/state_dict_names.py
"""
import pathlib

import torch

import torch_models

OUT = pathlib.Path(__file__).resolve().parent.parent / "state_dict_names"
CLASSIFIERS = ["resnet18", "resnet34", "resnet8", "resnet20", "resnet56", "resnet110", "resnet20_a",
               "resnet56_a", "resnet8x4", "resnet32x4", "wrn10_1", "wrn16_1", "wrn16_2", "wrn40_1",
               "wrn40_2", "vgg8", "vgg11", "vgg13", "vgg16", "vgg8_w0.5", "resnet50", "resnet18_in",
               "resnet50_in", "vgg11_bn", "vgg11_bn_fc", "vgg16_bn_fc4096", "vgg11_bn_in",
               "vgg19_bn", "mobilenet_v2", "mobilenet_v2_in",
               "shufflenet_v2_x1_0", "shufflenet_v2_x1_0_in", "densenet121", "repvgg_a0"]
GENERATORS = {"generator_cmi_32": ("cmi", 256, 32), "generator_cmi_64": ("cmi", 256, 64),
              "generator_cmi_28": ("cmi", 256, 28), "generator_large_32": ("large", 256, 32),
              "generator_large_32_nz512": ("large", 512, 32), "generator_dcgan_64": ("dcgan", 256, 64),
              "generator_dcgan_64_nz100": ("dcgan", 100, 64), "generator_dcgan_32": ("dcgan", 256, 32),
              "generator_dcgan_28": ("dcgan", 256, 28)}


def macs(model, x):
    total = [0]

    def hook(m, args, y):
        if isinstance(m, torch.nn.ConvTranspose2d):
            total[0] += args[0].numel() * m.weight[0].numel()
        elif isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)):
            total[0] += y.numel() * m.weight[0].numel()

    for m in model.modules():
        m.register_forward_hook(hook)
    with torch.no_grad():
        model.eval()(x)
    return total[0]


def write(name, model, x):
    state = model.state_dict()
    parameters = sum(p.numel() for p in model.parameters())
    lines = [f"# {name} input {'x'.join(map(str, x.shape[1:]))} keys {len(state)} "
             f"parameters {parameters} macs {macs(model, x)}"]
    for key, value in state.items():
        lines.append(f"{key} {'x'.join(map(str, value.shape)) or 'scalar'}")
    (OUT / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print(lines[0])


for name in CLASSIFIERS:
    write(name, torch_models.classifier(name), torch.zeros(1, 3, 32, 32))
for name, (kind, nz, size) in GENERATORS.items():
    write(name, torch_models.generator(kind, nz, 64, 3, size), torch.zeros(1, nz))
