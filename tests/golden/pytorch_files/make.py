"""Writes the files of this folder: one narrow netG and netD in every common file format.

Needs torch, numpy and safetensors (made with torch 2.13). Run in this folder: python3 make.py

expected.safetensors  every tensor, `netG.main.0.weight` and so on, as f32
forward.safetensors   z, fake = netG(z), x, logit and score = netD(x), all in eval mode
hostile_*             files that must be rejected: never load them with pickle
"""

import io
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict

import numpy
import torch
from safetensors.torch import save_file

from networks import NC, NZ, Discriminator, Generator


def pseudo_trained(net, draw):
    """Initializes the weights with a larger spread than the example, the biases too, and runs some training passes."""
    for name, parameter in net.named_parameters():
        if parameter.dim() == 4:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
        else:
            torch.nn.init.normal_(parameter, float(name.endswith("weight")), 0.2)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(draw())
    return net.eval()


torch.manual_seed(20160101)
net_g = pseudo_trained(Generator(), lambda: torch.randn(16, NZ, 1, 1))
net_d = pseudo_trained(Discriminator(), lambda: torch.rand(16, NC, 64, 64) * 2 - 1)
g, d = net_g.state_dict(), net_d.state_dict()


def renamed(state, old, new):
    return OrderedDict((name.replace(old, new, 1), tensor) for name, tensor in state.items())


def cast(state, dtype):
    return OrderedDict((k, v.to(dtype) if v.is_floating_point() else v) for k, v in state.items())


def nested(state, prefix, offset):
    """`main.3.weight` as `generator.gen.1.0.weight`: one Sequential per layer, as in many tutorials."""
    names = OrderedDict()
    for name, tensor in state.items():
        _, module, leaf = name.split(".")
        i, j = divmod(int(module) + offset if int(module) else 0, 3)
        names[f"{prefix}.{i}.{j}.{leaf}"] = tensor
    return names


def strided(state):
    """Tensors that share one storage, and tensors that are not contiguous in it."""
    flat = torch.cat([tensor.reshape(-1) for name, tensor in state.items() if name.endswith("running_mean")])
    views, at = OrderedDict(), 0
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            views[name] = flat[at : at + tensor.numel()]
            at += tensor.numel()
        elif tensor.dim() == 4:
            views[name] = tensor.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        else:
            views[name] = tensor
    assert all(torch.equal(views[name], tensor) for name, tensor in state.items())
    assert not views["main.5.weight"].is_contiguous()
    return views


torch.save(g, "netG.pth")
torch.save(d, "netD.pth")
torch.save(g, "netG_legacy.pth", _use_new_zipfile_serialization=False)
torch.save(strided(d), "netD_legacy_strided.pth", _use_new_zipfile_serialization=False)
torch.save(strided(d), "netD_strided.pth")
torch.save(renamed(d, "main.", "module.main."), "netD_data_parallel.pth")
torch.save({"state_dict": renamed(d, "main.", "model.")}, "netD_wrapped.pth")
torch.save(OrderedDict((k, v) for k, v in d.items() if "num_batches" not in k), "netD_no_counters.pth")
torch.save(OrderedDict(net_d.named_parameters()), "netD_parameters_only.pth")
for name, dtype in [("bf16", torch.bfloat16), ("f16", torch.float16), ("f64", torch.float64)]:
    torch.save(cast(d, dtype), f"netD_{name}.pth")

# A checkpoint of a training loop: network, optimizer, noise, losses and the state of a random number generator.
adam = torch.optim.Adam(net_d.parameters(), lr=2e-4, betas=(0.5, 0.999))
net_d.main[0].weight.sum().backward()
adam.step()
net_d.load_state_dict({k: v for k, v in torch.load("netD.pth").items()})
torch.save(
    {
        "epoch": 3,
        "model_state_dict": net_d.state_dict(),
        "optimizer_state_dict": adam.state_dict(),
        "fixed_noise": torch.zeros(2, NZ, 1, 1),
        "losses": [0.5, 0.25],
        "best": numpy.float64(0.25),
        "rng": torch.arange(16, dtype=torch.uint8),
        "device": torch.device("cpu"),
    },
    "netD_checkpoint.pth",
)
torch.save({"netG": net_g.state_dict(), "netD": net_d.state_dict()}, "both.pth")
both = nested(net_g.state_dict(), "generator.gen", 0)
both.update(nested(net_d.state_dict(), "discriminator.disc", 1))
torch.save(both, "both_flat_legacy.pth", _use_new_zipfile_serialization=False)

state = {k: v.contiguous() for k, v in net_g.state_dict().items()}
save_file(state, "netG.safetensors")
expected = {f"netG.{k}": v for k, v in net_g.state_dict().items() if v.dim()}
expected.update({f"netD.{k}": v for k, v in net_d.state_dict().items() if v.dim()})
save_file({k: v.contiguous() for k, v in expected.items()}, "expected.safetensors")

with torch.no_grad():
    z, x = torch.randn(1, NZ, 1, 1), torch.rand(1, NC, 64, 64) * 2 - 1
    logit = net_d.main[:-1](x).view(-1)
    values = {"z": z, "fake": net_g(z), "x": x, "logit": logit, "score": net_d(x)}
    save_file({name: value.contiguous() for name, value in values.items()}, "forward.safetensors")


class Call:
    """Unpickling calls os.system."""

    def __reduce__(self):
        return (os.system, ("echo this file ran a command",))


torch.save(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 4)), "hostile_whole_module.pth")
evil = io.BytesIO()
pickle.dump({"main.0.weight": Call()}, evil, protocol=2)
with zipfile.ZipFile("hostile_call.pth", "w") as archive:
    archive.writestr(zipfile.ZipInfo("archive/data.pkl"), evil.getvalue())
torch.save({"main.0.weight": Call()}, "hostile_call_legacy.pth", _use_new_zipfile_serialization=False)

for file in pathlib.Path().glob("*.safetensors"):
    file.chmod(0o644)
