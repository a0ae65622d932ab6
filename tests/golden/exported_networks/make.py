"""State dicts of the networks in networks.py, which `dcgan-train export` writes, and their outputs in PyTorch.

Needs torch, numpy and safetensors (made with torch 2.15). Run in this folder: python3 make.py

NAME.json            configuration
NAME.pth             {"netG": state dict, "netD": state dict}, after training passes for the running statistics
outputs.safetensors  NAME.z (n, size), NAME.y (n, classes) for conditional networks, NAME.images (n, c, h, w) of z,
                     NAME.logits (n) of these images, all in evaluation mode

First compares networks.py with the outputs of ../mnist_cond_narrow and ../paper64_narrow, whose formulas are written
out by hand.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "crates/dcgan-model/assets"))
from networks import Discriminator, Generator  # noqa: E402

N = 5
BLOCK = {"kernel": 4, "stride": 2, "padding": 1}
# Labels are concatenated to maps alone: the head reads a map of 2x3. With biases; sides that are not equal.
MAPS = {
    "version": 2,
    "name": "maps",
    "height": 8,
    "width": 12,
    "channels": 3,
    "classes": 4,
    "latent": {"size": 5, "distribution": "normal"},
    "generator": {
        "project_channels": 6,
        "project_norm": "per-channel",
        "norm": {"eps": 1e-5, "affine": True},
        "bias": [False, False, True],
        "blocks": [{"channels": c, **BLOCK} for c in (4, 3)],
        "output": "tanh",
    },
    "discriminator": {
        "negative_slope": 0.2,
        "norm": {"eps": 1e-5, "affine": True, "layers": [False, True, False]},
        "bias": True,
        "blocks": [{"channels": c, **BLOCK} for c in (4, 6)],
    },
}
# Labels are concatenated to vectors too; batch norm per activation with weight and bias; hidden dense layers.
VECTORS = {
    "version": 2,
    "name": "vectors",
    "height": 8,
    "width": 8,
    "channels": 1,
    "classes": 3,
    "latent": {"size": 4, "distribution": "uniform"},
    "generator": {
        "dense": [7],
        "project_channels": 4,
        "project_norm": "per-activation",
        "norm": {"eps": 1e-8, "affine": True},
        "blocks": [{"channels": c, "kernel": 5, "stride": 2, "padding": 2, "output_padding": 1} for c in (3, 1)],
        "output": "sigmoid",
    },
    "discriminator": {
        "negative_slope": 0.1,
        "norm": {"eps": 1e-8, "affine": False},
        "blocks": [{"channels": c, "kernel": 5, "stride": 2, "padding": 2} for c in (3, 4)],
        "dense": [6],
    },
}
# Pooling and upsampling instead of strides, another activation, no labels.
POOLED = {
    "version": 2,
    "name": "pooled",
    "height": 8,
    "width": 12,
    "channels": 3,
    "latent": {"size": 4, "distribution": "normal"},
    "generator": {
        "project_channels": 5,
        "project_norm": "per-channel",
        "norm": {"eps": 1e-5, "affine": True},
        "blocks": [{"channels": c, "kernel": 3, "stride": 1, "padding": 1, "upsample": 2} for c in (4, 3)],
        "output": "tanh",
    },
    "discriminator": {
        "negative_slope": 0.2,
        "activation": "sigmoid",
        "norm": {"eps": 1e-5, "affine": True},
        "blocks": [{"channels": c, "kernel": 3, "stride": 1, "padding": 1, "pool": 2} for c in (4, 6)],
    },
}


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(labels.long(), classes).float() if classes else None


def compare(name):
    folder = HERE.parent / name
    text = (folder / "config.json").read_text()
    text = text.replace('"leak"', '"negative_slope"').replace('"unit"', '"per-activation"')  # earlier names
    config, case = json.loads(text), load_file(folder / "case.safetensors")
    part = lambda net: {key[2:]: value for key, value in case.items() if key.startswith(f"{net}.")}
    y = one_hot(case["labels"], config["classes"]) if "labels" in case else None
    for network, net in [(Generator(config), "g"), (Discriminator(config), "d")]:
        tensors = part(net)
        wanted = {key: tensors[key] for key in network.state_dict() if not key.endswith("num_batches_tracked")}
        assert network.load_state_dict(wanted, strict=False).unexpected_keys == []
        network.eval()
        with torch.no_grad():
            if net == "g":
                found, known = network(case["z"], y).flatten()[::11], case["g.eval.every11"]
            else:
                images = case["images"][: len(case["z"])].float()
                images = images / 255 if config["generator"]["output"] == "sigmoid" else images / 127.5 - 1
                found, known = network(images, y), case["d.eval_logits"]
        difference = (found - known.flatten()).abs().max().item()
        print(f"{name} {net}: largest difference {difference:.1e}")
        assert difference < 2e-5, name


def trained(network):
    for key, parameter in network.named_parameters():
        is_weight = ".norm.weight" in key
        torch.nn.init.normal_(parameter, float(is_weight), 0.25)
    network.train()
    return network


def main():
    compare("mnist_cond_narrow")
    compare("paper64_narrow")
    torch.manual_seed(20151119)
    outputs = {}
    for config in (MAPS, VECTORS, POOLED):
        name, classes = config["name"], config.get("classes", 0)
        g, d = trained(Generator(config)), trained(Discriminator(config))
        with torch.no_grad():
            for _ in range(8):
                y = one_hot(torch.randint(classes, (16,)), classes) if classes else None
                d(g(g.draw(16), y), y)
            g.eval(), d.eval()
            # Labels need not be one-hot.
            z, y = g.draw(N), torch.rand(N, classes) if classes else None
            images = g(z, y)
            found = {"z": z, "images": images, "logits": d(images, y)}
            found |= {} if y is None else {"y": y}
        outputs.update({f"{name}.{key}": value for key, value in found.items()})
        torch.save({"netG": g.state_dict(), "netD": d.state_dict()}, HERE / f"{name}.pth")
        (HERE / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(outputs, HERE / "outputs.safetensors")
    assert np.isfinite([value.sum().item() for value in outputs.values()]).all()


if __name__ == "__main__":
    main()
