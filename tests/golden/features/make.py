"""Feature vectors of three narrow discriminators: `<case>.safetensors` and `<case>.json` for each.

Parameters are float32. PyTorch computes everything in float64, and the results are stored as float32. The procedure
is that of the authors' svhn_semisup_analysis.py. The batch norm statistics are averages over minibatches of 128 of
all images in order. The last, smaller minibatch has the same weight. Each layer is normalized by its own minibatch;
variances are biased. Then the activation of every block after LeakyReLU is max-pooled to 4x4, flattened in
channel-major order and concatenated.

Run: python3 make.py        (torch, numpy, safetensors; a second)

The images are not stored: image i, row y, column x, channel c is the upper byte of a linear congruential generator,
averaged with a pattern. `images` below and the test generate them.

  fives   32x32x3, 5x5 kernels of stride 2 as svhn32: maps of 16, 8, 4
  threes  32x32x3, 3x3 kernels of strides 1 and 2 as imagenet32: maps of 32, 16, 16, 8
  digits  28x28x1, 4x4 kernels of stride 2: maps of 14 and 7, not divisible by 4

  d.*                 <layer>.conv.weight, .norm.weight, .norm.bias; and the stored statistics
                      <layer>.norm.running_mean, .norm.running_var, which differ from the recalibrated ones
  stored              (8, width) features of the first 8 images with the stored statistics
  recalibrated        (8, width) with the recalibrated statistics
  statistics.*        the recalibrated statistics <layer>.norm.running_mean, .norm.running_var
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).parent
COUNT, BATCH, SAMPLES = 150, 128, 8
CASES = {
    "fives": (32, 3, 1e-8, [(4, 5, 2, 2), (6, 5, 2, 2), (8, 5, 2, 2)]),
    "threes": (32, 3, 1e-8, [(3, 3, 1, 1), (4, 3, 2, 1), (5, 3, 1, 1), (6, 3, 2, 1)]),
    "digits": (28, 1, 1e-5, [(4, 4, 2, 1), (6, 4, 2, 1)]),
}


def images(side, channels):
    """u8 (COUNT, side, side, channels)."""
    out = np.empty(COUNT * side * side * channels, np.uint8)
    state = 1
    for i in range(out.size):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out[i] = state >> 56
    i, y, x, c = np.indices((COUNT, side, side, channels))
    pattern = (i * 5 + y * 9 + x * 4 + c * 60) % 256
    return ((out.reshape(COUNT, side, side, channels).astype(np.int64) + pattern) // 2).astype(np.uint8)


def config(name, side, channels, eps, blocks):
    total = int(np.prod([b[2] for b in blocks]))
    generator = []
    while total > 1:
        total //= 2
        generator.append({"channels": channels if total == 1 else 2, "kernel": 4, "stride": 2, "padding": 1})
    norm = {"eps": eps, "affine": True}
    return {
        "name": name,
        "height": side,
        "width": side,
        "channels": channels,
        "latent": {"size": 2, "distribution": "normal"},
        "generator": {
            "project_channels": 2,
            "project_norm": "channel",  # alias of "per-channel"
            "norm": norm,
            "blocks": generator,
            "output": "tanh",
        },
        "discriminator": {
            "leak": 0.2,  # alias of "negative_slope"
            "norm": norm,
            "blocks": [dict(zip(("channels", "kernel", "stride", "padding"), b)) for b in blocks],
        },
    }


def forward(x, params, blocks, eps, statistics=None):
    """Activations after LeakyReLU, and the minibatch mean and biased variance of each layer with batch norm."""
    activations, minibatch_stats = [], {}
    for i, (_, _, stride, padding) in enumerate(blocks):
        x = F.conv2d(x, params[f"blocks.{i}.conv.weight"], stride=stride, padding=padding)
        if i > 0:
            name = f"blocks.{i}"
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            minibatch_stats[name] = (mean, variance)
            if statistics is not None:
                mean, variance = statistics[name]
            shape = (1, -1, 1, 1)
            x = (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + eps)
            x = x * params[f"{name}.norm.weight"].view(shape) + params[f"{name}.norm.bias"].view(shape)
        x = F.leaky_relu(x, 0.2)
        activations.append(x)
    return activations, minibatch_stats


def features(activations):
    return torch.cat([F.adaptive_max_pool2d(a, 4).flatten(1) for a in activations], 1)


def main():
    rng = np.random.default_rng(20151119)
    for name, (side, channels, eps, blocks) in CASES.items():
        (HERE / f"{name}.json").write_text(json.dumps(config(name, side, channels, eps, blocks), indent=2) + "\n")
        params, below, map_side = {}, channels, side
        for i, (out, kernel, stride, padding) in enumerate(blocks):
            fan = below * kernel * kernel
            params[f"blocks.{i}.conv.weight"] = rng.normal(0, fan**-0.5, (out, below, kernel, kernel))
            if i > 0:
                params[f"blocks.{i}.norm.weight"] = rng.normal(1, 0.2, out)
                params[f"blocks.{i}.norm.bias"] = rng.normal(0, 0.2, out)
                params[f"blocks.{i}.norm.running_mean"] = rng.normal(0, 0.1, out)
                params[f"blocks.{i}.norm.running_var"] = rng.uniform(0.1, 0.6, out)
            below, map_side = out, (map_side + 2 * padding - kernel) // stride + 1
        params["head.conv.weight"] = rng.normal(0, 0.1, (1, below, map_side, map_side))
        params = {key: value.astype(np.float32) for key, value in params.items()}
        params64 = {key: torch.from_numpy(value).double() for key, value in params.items()}
        u8 = images(side, channels)
        x = torch.from_numpy((u8.astype(np.float32) / np.float32(127.5) - np.float32(1))).double().permute(0, 3, 1, 2)

        batches = [forward(x[i : i + BATCH], params64, blocks, eps)[1] for i in range(0, COUNT, BATCH)]
        mean = lambda k, layer: sum(b[layer][k] for b in batches) / len(batches)
        recalibrated = {layer: (mean(0, layer), mean(1, layer)) for layer in batches[0]}
        running = lambda layer: tuple(params64[f"{layer}.norm.running_{suffix}"] for suffix in ("mean", "var"))
        stored = {layer: running(layer) for layer in batches[0]}
        case = {f"d.{key}": value for key, value in params.items()}
        case["stored"] = features(forward(x[:SAMPLES], params64, blocks, eps, stored)[0]).numpy()
        case["recalibrated"] = features(forward(x[:SAMPLES], params64, blocks, eps, recalibrated)[0]).numpy()
        for layer, (m, v) in recalibrated.items():
            case[f"statistics.{layer}.norm.running_mean"] = m.numpy()
            case[f"statistics.{layer}.norm.running_var"] = v.numpy()
        case = {key: np.ascontiguousarray(value.astype(np.float32)) for key, value in case.items()}
        save_file(case, HERE / f"{name}.safetensors")
        print(name, case["stored"].shape)


main()
