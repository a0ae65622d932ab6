"""Networks of the DCGAN family of pytorch/examples with any widths, kernels, biases and batch norms."""

import torch
from torch import nn


def pattern(*shape):
    """Values in [-1, 1] that a test can compute: 7c + 3i + 5j modulo 11, scaled."""
    n, c, i, j = torch.meshgrid(*(torch.arange(side) for side in shape), indexing="ij")
    return ((7 * c + 3 * i + 5 * j + n) % 11).float() / 5.0 - 1.0


def each(value, n):
    return list(value) if isinstance(value, (list, tuple)) else [value] * n


class Generator(nn.Module):
    def __init__(self, nz, widths, kernels=4, steps=None, bias=False, norms=None):
        super().__init__()
        n = len(widths)
        kernels, bias = each(kernels, n), each(bias, n)
        steps = steps or [(1, 0, 0)] + [(2, 1, 0)] * (n - 1)
        norms = norms or [True] * (n - 1) + [False]
        self.nz, layers = nz, []
        for i, (channels, width) in enumerate(zip([nz] + widths, widths)):
            stride, padding, extra = steps[i]
            layers.append(nn.ConvTranspose2d(channels, width, kernels[i], stride, padding, extra, bias=bias[i]))
            layers += [nn.BatchNorm2d(width)] if norms[i] else []
            layers.append(nn.ReLU(True) if i < n - 1 else nn.Tanh())
        self.main = nn.Sequential(*layers)

    def forward(self, z):
        return self.main(z)


class Discriminator(nn.Module):
    """Gives logits: the sigmoid of pytorch/examples has no weights."""

    def __init__(self, widths, kernels=4, size=(32, 32), bias=False, norms=None):
        super().__init__()
        n = len(widths)
        kernels, bias = each(kernels, n), each(bias, n)
        norms = norms or [False] + [True] * (n - 2) + [False]
        self.nc, self.size, layers = widths[0], size, []
        for i, (channels, width) in enumerate(zip(widths, widths[1:] + [1])):
            stride, padding = (2, 1) if i < n - 1 else (1, 0)
            layers.append(nn.Conv2d(channels, width, kernels[i], stride, padding, bias=bias[i]))
            layers += [nn.BatchNorm2d(width)] if norms[i] else []
            layers += [nn.LeakyReLU(0.2, inplace=True)] if i < n - 1 else []
        self.main = nn.Sequential(*layers)

    def forward(self, x):
        return self.main(x)


class Named(nn.Module):
    """A generator whose convolutions and batch norms are numbered apart."""

    def __init__(self, nz, widths):
        super().__init__()
        self.nz, self.n = nz, len(widths)
        for i, (channels, width) in enumerate(zip([nz] + widths, widths)):
            conv = nn.ConvTranspose2d(channels, width, 4, 2 if i else 1, 1 if i else 0, bias=False)
            setattr(self, f"deconv{i + 9}", conv)
            if i < self.n - 1:
                setattr(self, f"bn{i + 9}", nn.BatchNorm2d(width))

    def forward(self, z):
        for i in range(self.n):
            z = getattr(self, f"deconv{i + 9}")(z)
            z = torch.relu(getattr(self, f"bn{i + 9}")(z)) if i < self.n - 1 else torch.tanh(z)
        return z


class Parts(nn.Module):
    """A generator of parts whose names, sorted, are not in the order of the layers."""

    def __init__(self, nz, widths):
        super().__init__()
        self.nz = nz
        parts = Generator(nz, widths).main
        self.start, self.middle, self.image = parts[:3], parts[3:-2], parts[-2:]

    def forward(self, z):
        return self.image(self.middle(self.start(z)))
