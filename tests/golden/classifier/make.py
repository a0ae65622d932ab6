"""A discriminator of 16x16 images with ten output logits, trained with softmax cross-entropy: `case.safetensors` and
`config.json`.

Inputs and parameters are float32. Everything is computed in float64 and stored as float32. At the end the script
repeats the computation in float32 and prints the largest difference per group, the lower bound of a tolerance. The
seed was chosen among 60 so that no input of a LeakyReLU is close to 0. An input that rounds to the other side of 0
changes a gradient discontinuously, and Adam spreads the change.

Run: python3 make.py        (torch, numpy, safetensors; a few seconds on one core)

Shapes: n = 10 images in a minibatch. Kernels are 5x5 at stride 2 with padding 2; blocks of 4, 6 and 8 channels.

  images               u8 (20, 3, 16, 16); an image is images / 127.5 - 1, in float32
  labels               u32 (20): every class twice
  x                    the first 10 images, so not stored
  d.*                  initial parameters: <layer>.conv.weight, .norm.weight, .norm.bias; and <layer>.norm.running_mean,
                       .norm.running_var, the running statistics for evaluation mode
  eval_logits          (10, 10) in evaluation mode
  logits               (10, 10) in training mode
  out.<layer>          activations in training mode
  stat.<layer>.mean    minibatch statistics; .variance, biased
  loss                 mean cross-entropy; grad.*, grad_x: its gradients with respect to the parameters and to x
  steps.rows           u32 (10, 10): the images of step k
  steps.loss           (10), each before its step
  final.*              parameters after ten steps of Adam (1e-3, 0.5, 0.999, 1e-8, coupled weight decay 1e-3)
  final.adam.m.*, v.*  Adam's moments
  ce.logits            (7, 5), with differences from 0 to about 1000; ce.labels u32 (7), ce.losses (7), ce.loss (mean),
                       ce.gradient of the mean
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn

HERE = Path(__file__).parent
N, POOL, STEPS, CLASSES, WIDTHS, SEED = 10, 20, 10, 10, (4, 6, 8), 24
NAMES = ["blocks.0", "blocks.1", "blocks.2", "head"]
BLOCK = {"kernel": 5, "stride": 2, "padding": 2}
CONFIG = {
    "name": "classifier",
    "height": 16,
    "width": 16,
    "channels": 3,
    "latent": {"size": 4, "distribution": "uniform"},
    "generator": {
        "project_channels": 4,
        "project_norm": "channel",  # alias of "per-channel"
        "norm": {"eps": 1e-5, "affine": True},
        "blocks": [{"channels": 3, **BLOCK, "output_padding": 1}],
        "output": "tanh",
    },
    "discriminator": {
        "leak": 0.2,  # alias of "negative_slope"
        "norm": {"eps": 1e-5, "affine": True},
        "blocks": [{"channels": c, **BLOCK} for c in WIDTHS],
    },
}


def classifier():
    layers, before = [], 3
    for i, width in enumerate(WIDTHS):
        layers.append(nn.Conv2d(before, width, 5, 2, 2, bias=False))
        if i > 0:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.LeakyReLU(0.2))
        before = width
    return nn.Sequential(*layers, nn.Conv2d(before, CLASSES, 2, 1, 0, bias=False))


def named(net):
    """Parameters and running statistics of `net`, with the names of this project."""
    parameters, statistics, layer = {}, {}, iter(NAMES)
    for module in net:
        if isinstance(module, nn.Conv2d):
            name = next(layer)
            parameters[f"{name}.conv.weight"] = module.weight
        elif isinstance(module, nn.BatchNorm2d):
            parameters[f"{name}.norm.weight"], parameters[f"{name}.norm.bias"] = module.weight, module.bias
            statistics[f"{name}.norm.running_mean"] = module.running_mean
            statistics[f"{name}.norm.running_var"] = module.running_var
    return parameters, statistics


def trace(net, x):
    """The logits, every activation and the minibatch statistics of the inputs of every batch norm."""
    outs, stats, layer = {}, {}, iter(NAMES)
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            stats[f"{name}.mean"] = x.mean((0, 2, 3))
            stats[f"{name}.variance"] = x.var((0, 2, 3), unbiased=False)
        x = module(x)
        if isinstance(module, nn.Conv2d):
            name = next(layer)
        elif isinstance(module, nn.LeakyReLU):
            outs[name] = x
    return x.flatten(1), outs, stats


def draw(seed):
    """All inputs, as numpy."""
    rng = np.random.default_rng(seed)
    out = {}
    parameters, statistics = named(classifier())
    for name, tensor in (parameters | statistics).items():
        shape = tuple(tensor.shape)
        value = {
            "conv.weight": lambda: rng.normal(0, 0.3 if name == "head.conv.weight" else 0.1, shape),
            "norm.weight": lambda: rng.normal(1, 0.1, shape),
            "norm.bias": lambda: rng.normal(0, 0.1, shape),
            "norm.running_mean": lambda: rng.normal(0, 0.2, shape),
            "norm.running_var": lambda: rng.uniform(0.3, 1.5, shape),
        }[".".join(name.split(".")[-2:])]()
        out[f"d.{name}"] = value.astype(np.float32)
    coarse = rng.normal(127.5, 60, (POOL, 3, 4, 4)).repeat(4, 2).repeat(4, 3)
    noisy = coarse + rng.normal(0, 20, coarse.shape)
    out["images"] = noisy.round().clip(0, 255).astype(np.uint8)
    out["labels"] = (7 * np.arange(POOL) % CLASSES).astype(np.uint32)
    out["steps.rows"] = ((3 * np.arange(STEPS)[:, None] + np.arange(N)) % POOL).astype(np.uint32)
    scale = np.array([0, 1, 10, 30, 100, 1000, 1000])[:, None]
    out["ce.logits"] = (rng.normal(size=(7, 5)) * scale).astype(np.float32)
    out["ce.labels"] = out["ce.logits"].argmax(1).astype(np.uint32)
    out["ce.labels"][[1, 3, 6]] = [0, 1, 2]  # the others are correct, some with high confidence
    return out


def compute(inputs, dtype, relu_hook=lambda _module, _inputs: None):
    torch.manual_seed(0)
    images = inputs["images"].astype(np.float32) / np.float32(127.5) - np.float32(1)
    images = torch.from_numpy(images).to(dtype)
    labels = torch.from_numpy(inputs["labels"].astype(np.int64))
    net = classifier().to(dtype)
    for module in net:
        if isinstance(module, nn.LeakyReLU):
            module.register_forward_pre_hook(relu_hook)
    parameters, running = named(net)
    for name, tensor in (parameters | running).items():
        tensor.data.copy_(torch.from_numpy(inputs[f"d.{name}"]))
    out = {}
    with torch.no_grad():
        out["eval_logits"] = net.eval()(images[:N]).flatten(1)
    net.train()

    # One minibatch: every activation and every gradient, without an update.
    x = images[:N].clone().requires_grad_()
    logits, outs, stats = trace(net, x)
    loss = F.cross_entropy(logits, labels[:N])
    out |= {f"out.{name}": tensor for name, tensor in outs.items()}
    out |= {f"stat.{name}": tensor for name, tensor in stats.items()}
    out |= {"logits": logits, "loss": loss}
    out["grad_x"], *gradients = torch.autograd.grad(loss, [x, *parameters.values()])
    out |= {f"grad.{name}": gradient for name, gradient in zip(parameters, gradients)}

    # Ten steps.
    adam = torch.optim.Adam(parameters.values(), lr=1e-3, betas=(0.5, 0.999), eps=1e-8, weight_decay=1e-3)
    losses = []
    for rows in torch.from_numpy(inputs["steps.rows"].astype(np.int64)):
        loss = F.cross_entropy(net(images[rows]).flatten(1), labels[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss)
    out["steps.loss"] = torch.stack(losses)
    for name, tensor in parameters.items():
        out[f"final.{name}"] = tensor
        out[f"final.adam.m.{name}"] = adam.state[tensor]["exp_avg"]
        out[f"final.adam.v.{name}"] = adam.state[tensor]["exp_avg_sq"]

    # The loss alone.
    logits = torch.from_numpy(inputs["ce.logits"]).to(dtype).requires_grad_()
    classes = torch.from_numpy(inputs["ce.labels"].astype(np.int64))
    out["ce.losses"] = F.cross_entropy(logits, classes, reduction="none")
    out["ce.loss"] = F.cross_entropy(logits, classes)
    out["ce.gradient"] = torch.autograd.grad(out["ce.loss"], logits)[0]
    return {key: tensor.detach().numpy() for key, tensor in out.items()}


def report(reference, single):
    """Prints, per group of keys, the largest |difference| divided by the largest value of the tensor."""
    worst = {}
    for key, value in reference.items():
        group = re.sub(r"\.(blocks|head)(\..*)?$", "", key)
        off = np.abs(single[key] - value).max() / max(np.abs(value).max(), 1e-30)
        worst[group] = max(worst.get(group, (0.0, "")), (float(off), key))
    for group, (off, key) in sorted(worst.items()):
        print(f"  {group:24} {off:.1e}  {key}")


def smallest_input(seed):
    """The smallest magnitude of a LeakyReLU input."""
    magnitudes = []
    compute(draw(seed), torch.float64, lambda _, x: magnitudes.append(x[0].detach().abs().min().item()))
    return min(magnitudes)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    inputs = draw(SEED)
    reference = compute(inputs, torch.float64)
    tensors = inputs | {key: value.astype(np.float32) for key, value in reference.items()}
    save_file(dict(sorted(tensors.items())), HERE / "case.safetensors")
    (HERE / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    size = (HERE / "case.safetensors").stat().st_size
    print(f"torch {torch.__version__}: {len(tensors)} tensors, {size} bytes")
    print(f"the smallest magnitude of a LeakyReLU input: {smallest_input(SEED):.1e}")
    print("largest difference between float32 and float64, relative to the largest value of the tensor:")
    report(reference, compute(inputs, torch.float32))


if __name__ == "__main__":
    main()
