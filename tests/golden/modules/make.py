"""Writes the files of this folder: small networks saved as modules, whose strides do not follow from their tensors, and
the outputs of PyTorch in eval mode.

Needs torch, numpy and safetensors (made with torch 2.15). Run in this folder: python3 make.py

steps.pth            generator and discriminator as modules, of strides 3, 1 and 2, other eps and another slope
legacy.pth           the same in the format before 1.6, which holds the classes with their source, left out here
state.pth            their tensors alone, which fit several strides
same.pth             a discriminator with padding="same", a generator that ends in a sigmoid, protocol 4
leaky.pth, ...       networks that a configuration cannot describe
outputs.safetensors  `NAME.fake` is G(z) and `NAME.logit` is D(x) of the networks in NAME.pth; of images, every value at
                     a multiple of side // 8 rows and columns. z and x are `pattern` of ../imports/networks.py
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, "../imports")
from networks import pattern

torch.manual_seed(20151119)
outputs = {}


def up(channels, width, kernel, stride, padding, extra=0):
    return nn.ConvTranspose2d(channels, width, kernel, stride, padding, extra, bias=False)


def down(channels, width, kernel, stride, padding, **options):
    return nn.Conv2d(channels, width, kernel, stride, padding, bias=False, **options)


def generator(last=None, hidden=nn.ReLU, first=(1, 0)):
    return nn.Sequential(
        up(3, 8, 4, *first),
        nn.BatchNorm2d(8, eps=0.01),
        hidden(),
        up(8, 4, 5, 3, 1),
        nn.BatchNorm2d(4, eps=0.01),
        hidden(),
        up(4, 2, 3, 1, 1),
        nn.BatchNorm2d(2, eps=0.01),
        hidden(),
        up(2, 3, 4, 2, 1),
        last or nn.Tanh(),
    )


def discriminator(slope=0.05, **options):
    return nn.Sequential(
        down(3, 2, 4, 2, 1),
        nn.LeakyReLU(0.05),
        down(2, 4, 5, 3, 1, **options),
        nn.BatchNorm2d(4, eps=0.1),
        nn.LeakyReLU(slope),
        down(4, 1, 4, 1, 0),
        nn.Sigmoid(),
    )


def trained(net, shape):
    for name, parameter in net.named_parameters():
        if parameter.dim() == 4:
            nn.init.normal_(parameter, 0.0, 0.25)
        else:
            nn.init.normal_(parameter, float(name.endswith("weight")), 0.2)
    net.train()
    with torch.no_grad():
        for _ in range(8):
            net(torch.randn(8, *shape))
    return net.eval()


def save(name, g, d, side, **options):
    torch.save({"netG": g, "netD": d}, f"{name}.pth", **options)
    with torch.no_grad():
        fake = g(pattern(1, 3, 1, 1))
        step = fake.shape[2] // 8
        outputs[f"{name}.fake"] = fake[:, :, ::step, ::step].contiguous()
        outputs[f"{name}.logit"] = d[:-1](pattern(1, 3, side, side)).reshape(-1)


g, d = trained(generator(), (3, 1, 1)), trained(discriminator(), (3, 24, 24))
save("steps", g, d, 24)
torch.serialization.get_source_lines_and_file = lambda obj: ([""], 0, "file.py")
save("legacy", g, d, 24, _use_new_zipfile_serialization=False)
torch.save({"netG": g.state_dict(), "netD": d.state_dict()}, "state.pth")
g = trained(generator(nn.Sigmoid()), (3, 1, 1))
d = nn.Sequential(
    nn.Conv2d(3, 2, 3, padding="same", bias=False),
    nn.LeakyReLU(0.3),
    down(2, 4, 6, 6, 0),
    nn.BatchNorm2d(4),
    nn.LeakyReLU(0.3),
    down(4, 1, 4, 1, "valid"),
    nn.Sigmoid(),
)
save("same", g, trained(d, (3, 24, 24)), 24, pickle_protocol=4)

for name, net in {
    "leaky": generator(hidden=lambda: nn.LeakyReLU(0.2)),
    "padded": generator(first=(1, 1)),
    "pooled": nn.Sequential(*discriminator()[:2], nn.AvgPool2d(3, 1, 1), *discriminator()[2:]),
    "dilated": discriminator(dilation=2),
    "reflected": discriminator(padding_mode="reflect"),
    "slopes": discriminator(slope=0.1),
    "order": nn.Sequential(
        *discriminator()[:3], nn.LeakyReLU(0.05), nn.Dropout2d(0.25), nn.BatchNorm2d(4), *discriminator()[5:]
    ),
    "strided": nn.Sequential(*discriminator()[:2], down(2, 4, 5, 1 << 40, 1), *discriminator()[3:]),
}.items():
    torch.save(net, f"{name}.pth")
save_file(outputs, "outputs.safetensors")
pathlib.Path("outputs.safetensors").chmod(0o644)
