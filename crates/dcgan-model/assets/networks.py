"""Networks exported by `dcgan-train export` that are no nn.Sequential: conditional networks, dense hidden layers, batch
norm per activation. Needs torch and safetensors.

    from networks import load

    netG, netD = load("netG.safetensors"), load("netD.safetensors")
    z = netG.draw(64)                          # (64, size of z)
    y = torch.eye(10)[torch.arange(64) % 10]   # (64, classes) label vectors; conditional networks only
    images = netG(z, y)                        # (64, channels, height, width), in [-1, 1], or [0, 1] after a sigmoid
    logits = netD(images, y)                   # (64,)

`load` returns a network in evaluation mode. `Generator(config)` and `Discriminator(config)` are made from the
configuration in the metadata of either file. `dcgan-train import` reads their state dicts again.

Label vectors, one-hot or soft labels, are concatenated to the input of every layer, after its own channels: to a
vector as further values, to a map along the channels as constant maps (`conv_cond_concat` in the authors' code). A
dense layer of D on a map reads the flattened map and the label vector; `label` is its weight for this vector.
"""

import json

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn


ACTIVATIONS = {"tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU, "identity": nn.Identity}


class PerActivationNorm(nn.Module):
    """Batch norm with a mean and a variance per activation `(c, h, w)`, over the batch alone."""

    def __init__(self, shape, eps, affine, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        if affine:
            self.weight = nn.Parameter(torch.ones(shape))
            self.bias = nn.Parameter(torch.zeros(shape))
        self.affine = affine
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x):
        if self.training:
            var, mean = torch.var_mean(x, 0, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (len(x) / (len(x) - 1)), self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        x = (x - mean) / torch.sqrt(var + self.eps)
        return x * self.weight + self.bias if self.affine else x


class Layer(nn.Module):
    """Resampling and batch norm where there are, linear operation, activation. `labels` says how label vectors enter:
    "maps" after the input's channels, "values" beside a flattened map."""

    def __init__(self, conv, classes, norm, activation, labels="maps", resample=None):
        super().__init__()
        self.conv, self.activation, self.resample = conv, activation, resample or nn.Identity()
        self.concatenates_maps = classes > 0 and labels == "maps"
        if classes > 0 and labels == "values":
            self.label = nn.Linear(classes, conv.out_channels, bias=False)
        if norm is not None:
            self.norm = norm

    def forward(self, x, y):
        x = self.resample(x)
        if self.concatenates_maps:
            x = torch.cat([x, y[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
        x = self.conv(x)
        if hasattr(self, "label"):
            x = x + self.label(y)[:, :, None, None]
        return self.activation(self.norm(x) if hasattr(self, "norm") else x)


class Network(nn.Module):
    """A list of layers under the names of their tensors in dcgan-rs."""

    def __init__(self, config, of_network):
        super().__init__()
        self.config, self.classes, self.of_network = config, config.get("classes", 0), of_network
        self.order = []

    def add(self, name, conv, norm, activation, labels="maps", resample=None):
        layer = Layer(conv, self.classes, norm, activation, labels, resample)
        if "." not in name:
            setattr(self, name, layer)
        else:
            group = name.split(".")[0]
            if not hasattr(self, group):
                setattr(self, group, nn.ModuleList())
            getattr(self, group).append(layer)
        self.order.append(layer)

    def has_bias(self):
        bias = self.of_network.get("bias", False)
        return bias[len(self.order)] if isinstance(bias, list) else bias

    def norm(self, shape, usual, per_activation=False):
        """The batch norm of the next layer, or None."""
        config = self.of_network["norm"]
        layers = config.get("layers")
        if not (usual if layers is None else layers[len(self.order)]):
            return None
        if per_activation:
            return PerActivationNorm(shape, config["eps"], config["affine"])
        return nn.BatchNorm2d(shape[0], eps=config["eps"], affine=config["affine"])

    def run(self, x, y):
        if self.classes and (y is None or y.shape != (len(x), self.classes)):
            raise ValueError(f"expected label vectors of shape ({len(x)}, {self.classes}), one-hot for a class")
        for layer in self.order:
            x = layer(x, y)
        return x


class Generator(Network):
    """z `(n, size)` and label vectors `(n, classes)` to images."""

    def __init__(self, config):
        super().__init__(config, config["generator"])
        g, y, channels = self.of_network, self.classes, config["latent"]["size"]
        stride = 1
        for block in g["blocks"]:
            stride *= block["stride"] * block.get("upsample", 1)
        size = g.get("project_size") or (config["height"] // stride, config["width"] // stride)
        for i, units in enumerate(g.get("dense", [])):
            conv = nn.ConvTranspose2d(channels + y, units, 1, bias=self.has_bias())
            self.add(f"dense.{i}", conv, self.norm((units, 1, 1), True), nn.ReLU())
            channels = units
        conv = nn.ConvTranspose2d(channels + y, g["project_channels"], tuple(size), bias=self.has_bias())
        channels = g["project_channels"]
        norm = self.norm((channels, *size), True, g["project_norm"] == "per-activation")
        self.add("project", conv, norm, nn.ReLU())
        for i, block in enumerate(g["blocks"]):
            last = i + 1 == len(g["blocks"])
            conv = nn.ConvTranspose2d(
                channels + y, block["channels"], block["kernel"], block["stride"], block["padding"],
                block.get("output_padding", 0), bias=self.has_bias(),
            )  # fmt: skip
            channels = block["channels"]
            norm = self.norm((channels, 1, 1), not last)
            activation = ACTIVATIONS[g["output"]]() if last else nn.ReLU()
            resample = nn.Upsample(scale_factor=block["upsample"]) if block.get("upsample", 0) > 1 else None
            self.add(f"blocks.{i}", conv, norm, activation, resample=resample)

    def draw(self, n, generator=None):
        """n latent vectors from the distribution that the network was trained with."""
        size, distribution = self.config["latent"]["size"], self.config["latent"]["distribution"]
        if distribution == "uniform":
            return torch.rand(n, size, generator=generator) * 2 - 1
        return torch.randn(n, size, generator=generator)

    def forward(self, z, y=None):
        return self.run(z.reshape(len(z), -1, 1, 1), y)


class Discriminator(Network):
    """Images and label vectors `(n, classes)` to logits `(n)`."""

    def __init__(self, config):
        super().__init__(config, config["discriminator"])
        d, y, channels = self.of_network, self.classes, config["channels"]
        hidden = ACTIVATIONS[d["activation"]]() if "activation" in d else nn.LeakyReLU(d["negative_slope"])
        height, width, pool = config["height"], config["width"], None
        for i, block in enumerate(d["blocks"]):
            conv = nn.Conv2d(
                channels + y, block["channels"], block["kernel"], block["stride"], block["padding"],
                bias=self.has_bias(),
            )  # fmt: skip
            channels = block["channels"]
            self.add(f"blocks.{i}", conv, self.norm((channels, 1, 1), i > 0), hidden, resample=pool)
            side = lambda n: (n + 2 * block["padding"] - block["kernel"]) // block["stride"] + 1
            factor = block.get("pool", 1)
            height, width = side(height) // factor, side(width) // factor
            pool = nn.MaxPool2d(factor) if factor > 1 else None
        for i, units in enumerate([*d.get("dense", []), 1]):
            head = i == len(d.get("dense", []))
            labels = "maps" if (height, width) == (1, 1) else "values"
            inputs = channels + (y if labels == "maps" else 0)
            conv = nn.Conv2d(inputs, units, (height, width), bias=self.has_bias())
            channels, height, width = units, 1, 1
            norm = self.norm((units, 1, 1), not head)
            name, activation = ("head", nn.Identity()) if head else (f"dense.{i}", hidden)
            self.add(name, conv, norm, activation, labels, pool)
            pool = None

    def forward(self, images, y=None):
        return self.run(images, y).flatten()


def load(path):
    """The network in a file by `dcgan-train export`, in evaluation mode."""
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["dcgan_model.config"])
        names = set(file.keys())
    network = Generator(config) if "project.conv.weight" in names else Discriminator(config)
    network.load_state_dict(load_file(path))
    return network.eval()
