"""Writes the files of this folder: small networks in forms that a configuration is inferred from, or that must be
folded, and the outputs of PyTorch in eval mode.

Needs torch, numpy and safetensors (made with torch 2.15). Run in this folder: python3 make.py

outputs.safetensors  `NAME.fake` is G(z) and `NAME.logit` is D(x) of the networks in NAME.*; of images, every value at
                     a multiple of side // 8 rows and columns. z and x are `pattern` in networks.py
"""

import argparse
import collections
import dataclasses
import datetime
import pathlib
import warnings
import zipfile

import numpy
import torch
from safetensors.torch import save_file
from torch.nn.utils import parametrizations, prune

from networks import Discriminator, Generator, Named, Parts, pattern

warnings.simplefilter("ignore")
torch.manual_seed(20151119)
outputs = {}


def trained(net, passes=8):
    """Draws weights, and runs training passes for the statistics of batch norm and the vectors of spectral norm."""
    for name, parameter in net.named_parameters():
        if parameter.dim() == 4:
            torch.nn.init.normal_(parameter, 0.0, 0.25)
        elif parameter.dim() == 1:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.2)
    net.train()
    with torch.no_grad():
        for _ in range(passes):
            shape = (8, net.nz, 1, 1) if hasattr(net, "nz") else (8, net.nc, *net.size)
            net(torch.randn(shape))
    return net.eval()


def record(name, *nets):
    with torch.no_grad():
        for net in nets:
            if hasattr(net, "nz"):
                fake = net(pattern(1, net.nz, 1, 1))
                step_h, step_w = fake.shape[2] // 8, fake.shape[3] // 8
                outputs[f"{name}.fake"] = fake[:, :, ::step_h, ::step_w].contiguous()
            else:
                outputs[f"{name}.logit"] = net(pattern(1, net.nc, *net.size)).reshape(-1)


def save(name, content, *nets, ending="pth", **options):
    torch.save(content, f"{name}.{ending}", **options)
    record(name, *nets)


def on_layers(net, wrap):
    for name, module in list(net.main.named_children()):
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            wrap(module)
    return net


def state(net):
    return net.state_dict()


# Biases: of all convolutions, and of those without batch norm only.
g = trained(Generator(5, [4, 3, 2, 3], bias=True))
save("bias_g", state(g), g)
d = trained(Discriminator([3, 2, 3, 4], bias=True))
save("bias_d", state(d), d)
g = trained(Generator(5, [4, 3, 2, 1], bias=[False, False, False, True]))
save("bias_of_the_last", state(g), g)
g = trained(Generator(5, [4, 3, 2, 3], bias=True, norms=[True, False, False, False]))
save("few_norms", state(g), g)
d = trained(Discriminator([3, 2, 3, 4], norms=[True, True, True, False]))
save("norm_of_the_first", state(d), d)

# Spectral norm in both forms, weight norm in both forms, pruning. Square layers: in = out = 4.
for kind, wrap in [
    ("spectral_old", torch.nn.utils.spectral_norm),
    ("spectral_new", parametrizations.spectral_norm),
    ("weight_norm_old", torch.nn.utils.weight_norm),
    ("weight_norm_new", parametrizations.weight_norm),
    ("pruned", lambda module: prune.l1_unstructured(module, "weight", 0.3)),
]:
    g = trained(on_layers(Generator(4, [4, 4, 2, 3], bias=True), wrap))
    d = trained(on_layers(Discriminator([3, 4, 4, 4]), wrap))
    save(kind, {"netG": state(g), "netD": state(d)}, g, d)
d = trained(on_layers(Discriminator([3, 2, 3, 4], bias=True, norms=[False] * 4), torch.nn.utils.spectral_norm))
save("spectral_without_norm", state(d), d)
d = trained(on_layers(Discriminator([3, 2, 3, 4]), lambda module: torch.nn.utils.weight_norm(module, dim=None)))
save("weight_norm_of_all", state(d), d)

# Sizes.
g, d = trained(Generator(7, [4, 3, 2, 2, 2, 3])), trained(Discriminator([3, 2, 2, 2, 2, 3], size=(128, 128)))
save("size128", {"G": state(g), "D": state(d)}, g, d)
g, d = trained(Generator(3, [4, 2, 1], kernels=[7, 4, 4])), trained(Discriminator([1, 2, 3], [4, 4, 7], size=(28, 28)))
save("size28", [state(g), state(d)], g, d)
g = trained(Generator(3, [4, 3, 2, 1], kernels=[4, 3, 4, 4], steps=[(1, 0, 0), (2, 1, 0), (2, 1, 0), (2, 1, 0)]))
save("size28_kernel3", state(g), g)
g = trained(Generator(3, [4, 2, 3], kernels=[(4, 6), 4, 4]))
d = trained(Discriminator([3, 2, 3], [4, 4, (4, 6)], size=(16, 24)))
save("wide", {"g": state(g), "d": state(d)}, g, d)
five = [(1, 0, 0), (2, 2, 1), (2, 2, 1), (2, 2, 1)]
g = trained(Generator(3, [4, 3, 2, 3], kernels=[4, 5, 5, 5], steps=five))
save("kernel5", state(g), g)

# Names and order.
g, d = trained(Generator(5, [4, 3, 2, 3])), trained(Discriminator([3, 2, 3, 4]))
names = {f"_orig_mod.netG.module.{k}": v for k, v in state(g).items()}
names |= {f"_orig_mod.netD.module.{k}": v for k, v in state(d).items()}
save("prefixes", names, g, d)
named = trained(Named(5, [4, 3, 2, 3]))
save_file({k: v.contiguous() for k, v in state(named).items()}, "named.safetensors")
record("named", named)
parts = trained(Parts(5, [4, 3, 2, 3]))
save_file({k: v.contiguous() for k, v in state(parts).items()}, "parts.safetensors")
record("parts", parts)
save("numpy_arrays", {"params": {k: v.numpy() for k, v in state(g).items()}}, g)
average = {k: v.float() for k, v in state(trained(Generator(5, [4, 3, 2, 3]))).items()}
g.load_state_dict(average)
save("average", {"G": state(trained(Generator(5, [4, 3, 2, 3]))), "G_ema": average, "D": state(d)}, g, d)


# Objects that are read as data or skipped; unpickling them would need their classes.
@dataclasses.dataclass
class Settings:
    z: int = 5
    device: torch.device = torch.device("cpu")
    weights: tuple = (torch.Size([1, 2]),)


class Mapping(dict):
    pass


adam = torch.optim.Adam(g.parameters(), lr=2e-4)
g.main[0].weight.sum().backward()
adam.step()
g.load_state_dict(average)
options = argparse.Namespace(niter=25, cuda=True, outf=pathlib.PurePosixPath("out"), nz=5, net=Generator, f=print)
checkpoint = {
    "epoch": 3,
    "opt": options,
    "settings": Settings(),
    "models": Mapping(netG=state(g), netD=state(d)),
    "optimizerG": adam.state_dict(),
    "optimizer": adam,
    "scheduler": torch.optim.lr_scheduler.StepLR(adam, 2),
    "losses": collections.defaultdict(list, g=[0.5, numpy.float32(0.25)], d=collections.deque([1.5])),
    "seen": {1, 2},
    "kinds": frozenset(["a"]),
    "shape": g.main[0].weight.shape,
    "dtype": torch.bfloat16,
    "when": datetime.datetime(2015, 11, 19),
    "rng": numpy.random.RandomState(0).get_state()[1][:4],
    "counter": collections.Counter("aab"),
    "complex": torch.zeros(2, dtype=torch.complex64),
    "noise": torch.zeros(1, 5, 1, 1),
}
save("objects", checkpoint, g, d)
save("whole_modules", {"netG": g, "netD": torch.nn.DataParallel(d)}, g, d)
for protocol in [3, 5]:
    save(f"protocol{protocol}", {"opt": options, "state": {"G": state(g)}}, g, pickle_protocol=protocol)


# TorchScript archives; a frozen one has no tensors of its own.
def save_script(name, module):
    """Without most of the code, which holds paths of this machine."""
    module.save("all.zip")
    with zipfile.ZipFile("all.zip") as whole, zipfile.ZipFile(f"{name}.pt", "w") as small:
        for member in whole.namelist():
            folder, _, path = member.partition("/")
            is_own = path.startswith("code/__torch__/networks") and path.endswith(".py")
            if is_own or not path.startswith(("code/", ".data/")):
                small.writestr(zipfile.ZipInfo(f"{name}/{path}"), whole.read(member))
    pathlib.Path("all.zip").unlink()


save_script("script_g", torch.jit.script(g))
record("script_g", g)
save_script("script_d", torch.jit.trace(d, pattern(1, 3, 32, 32)))
record("script_d", d)
save_script("frozen", torch.jit.freeze(torch.jit.script(trained(Generator(2, [2, 1])))))

# Files that must be refused.
broken = dict(state(g))
del broken["main.3.weight"], broken["main.7.running_mean"]
broken["main.9.weight"] = broken["main.9.weight"][:, :, :3]
torch.save(broken, "broken.pth")
nan = {k: v.clone() for k, v in state(d).items()}
nan["main.5.weight"][0, 0, 0, :2] = float("nan")
nan["main.6.bias"][0] = float("inf")
torch.save(nan, "nan.pth")
quantized = torch.quantize_per_tensor(torch.zeros(2, 3, 4, 4), 0.1, 0, torch.qint8)
torch.save({"main.0.weight": quantized}, "quantized.pth")

save_file(outputs, "outputs.safetensors")
for file in pathlib.Path().glob("*.safetensors"):
    file.chmod(0o644)
