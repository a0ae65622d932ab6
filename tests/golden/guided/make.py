"""Guided gradients of a narrow discriminator: `case.safetensors`, and its `config.json`.

Parameters are float32. PyTorch's autograd computes everything in float64, and the results are stored as float32. The
forward pass of LeakyReLU(0.2) is the usual one. Its backward pass propagates positive gradients where the input was
positive, and zero elsewhere (Springenberg et al. 2015, guided backpropagation). Batch norm is in evaluation mode.

Run: python3 make.py        (torch, numpy, safetensors; a second)

The images are not stored: their bytes, in the order (n, h, w, c), are the upper bytes of a linear congruential
generator that starts from 1. `images` below and the test generate them.

  d.*          <layer>.conv.weight, .norm.weight, .norm.bias, .norm.running_mean, .norm.running_var
  gradients    (n, 3, 12, 12): for each image, the gradient of the largest activation of one feature of the last block
  places       (n, 3): this feature, row and column
  largest      (n): this activation
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).parent
SIDE, CHANNELS, EPS, NEGATIVE_SLOPE = 12, 3, 1e-5, 0.2
BLOCKS = [(4, 3, 2, 1), (5, 3, 2, 1), (6, 3, 1, 1)]  # channels, kernel, stride, padding: maps of 6, 3, 3
FEATURES = [0, 5]


def images():
    """float32 in [-1, 1], (n, c, h, w)."""
    out = np.empty(len(FEATURES) * SIDE * SIDE * CHANNELS, np.uint8)
    state = 1
    for i in range(out.size):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out[i] = state >> 56
    x = out.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return x.reshape(len(FEATURES), SIDE, SIDE, CHANNELS).transpose(0, 3, 1, 2)


class GuidedLeakyRelu(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return F.leaky_relu(x, NEGATIVE_SLOPE)

    @staticmethod
    def backward(context, grad_output):
        (x,) = context.saved_tensors
        return grad_output.clamp(min=0) * (x > 0)


def config():
    norm = {"eps": EPS, "affine": True}
    up = {"kernel": 4, "stride": 2, "padding": 1}
    return {
        "name": "guided",
        "height": SIDE,
        "width": SIDE,
        "channels": CHANNELS,
        "latent": {"size": 2, "distribution": "normal"},
        "generator": {
            "project_channels": 2,
            "project_norm": "channel",  # alias of "per-channel"
            "norm": norm,
            "blocks": [{"channels": 2, **up}, {"channels": CHANNELS, **up}],
            "output": "tanh",
        },
        "discriminator": {
            "leak": NEGATIVE_SLOPE,  # alias of "negative_slope"
            "norm": norm,
            "blocks": [dict(zip(("channels", "kernel", "stride", "padding"), b)) for b in BLOCKS],
        },
    }


def main():
    rng = np.random.default_rng(20151119)
    params, below = {}, CHANNELS
    for i, (out, kernel, _, _) in enumerate(BLOCKS):
        shape = (out, below, kernel, kernel)
        params[f"blocks.{i}.conv.weight"] = rng.normal(0, (below * kernel * kernel) ** -0.5, shape)
        if i > 0:
            params[f"blocks.{i}.norm.weight"] = rng.normal(1, 0.2, out)
            params[f"blocks.{i}.norm.bias"] = rng.normal(0, 0.2, out)
            params[f"blocks.{i}.norm.running_mean"] = rng.normal(0, 0.1, out)
            params[f"blocks.{i}.norm.running_var"] = rng.uniform(0.1, 0.6, out)
        below = out
    params["head.conv.weight"] = rng.normal(0, 0.1, (1, below, 3, 3))
    params = {key: value.astype(np.float32) for key, value in params.items()}
    params64 = {key: torch.from_numpy(value).double() for key, value in params.items()}

    x = torch.from_numpy(images()).double().requires_grad_()
    h = x
    for i, (_, _, stride, padding) in enumerate(BLOCKS):
        h = F.conv2d(h, params64[f"blocks.{i}.conv.weight"], stride=stride, padding=padding)
        if i > 0:
            suffixes = ("running_mean", "running_var", "weight", "bias")
            mean, variance, weight, bias = (params64[f"blocks.{i}.norm.{suffix}"] for suffix in suffixes)
            h = F.batch_norm(h, mean, variance, weight, bias, training=False, eps=EPS)
        h = GuidedLeakyRelu.apply(h)
    places, chosen = [], []
    for n, feature in enumerate(FEATURES):
        row, column = divmod(int(h[n, feature].argmax()), h.shape[3])
        places.append((feature, row, column))
        chosen.append(h[n, feature, row, column])
    sum(chosen).backward()  # images are independent in evaluation mode

    case = {f"d.{key}": value for key, value in params.items()}
    case["gradients"] = x.grad.numpy()
    case["places"] = np.array(places)
    case["largest"] = torch.stack(chosen).detach().numpy()
    save_file({key: np.ascontiguousarray(v.astype(np.float32)) for key, v in case.items()}, HERE / "case.safetensors")
    (HERE / "config.json").write_text(json.dumps(config(), indent=2) + "\n")
    print(places, case["largest"], np.abs(case["gradients"]).max((1, 2, 3)))


main()
