"""The authors' networks at 64x64 (Newmu/dcgan_code, faces), 1/32 of the width: `case.safetensors` and `config.json`.

5x5 kernels, stride 2; batch norm with eps 1e-8, per activation after the projection; z from U(-1, 1); coupled L2 of
1e-5 on every parameter; each minibatch updates either G or D, G first. Batch norm is implemented here on plain
tensors, as in the authors' code; the case pytorch64_narrow uses torch.nn.

Inputs and parameters are float32. Everything is computed in float64 and stored as float32. At the end the script
repeats the computation in float32 and prints the largest difference per group, the lower bound of a tolerance. The
seed was chosen among about 200 so that no input of a ReLU is close to 0, in the ten steps too. An input that rounds
to the other side of 0 changes a gradient discontinuously, and Adam spreads the change.

Run: python3 make.py        (torch, numpy, safetensors; a few seconds on one core)

Shapes: n = 5 images in a minibatch, z of 10. A tensor of more than 1024 values, except inputs and initial parameters,
is stored as `<key>.every11`: its values 0, 11, 22, ... in row-major order. 11 divides no dimension, so the values cover
each channel, row and column.

  images                    u8 (8, 3, 64, 64); an image is images / 127.5 - 1, in float32
  x                         the first 5 images, so not stored; z is (5, 10)
  g.*, d.*                  initial parameters: <layer>.conv.weight, .norm.weight, .norm.bias; and
                            <layer>.norm.running_mean, .norm.running_var, the running statistics for evaluation mode
  g.out.<layer>             activations of G(z) in training mode; likewise d_real (of x), d_fake (of G(z))
  g.stat.<layer>.mean       minibatch statistics; .variance, biased; likewise d_real, d_fake
  d_real.logits             (5); likewise d_fake
  loss_d_real, loss_d_fake  mean binary cross-entropy with target 1 and 0; loss_d is their sum
  loss_g                    target 1 on d_fake.logits
  grad_d.*                  gradients of loss_d with respect to D's parameters, without the L2 term, as in all gradients
  grad_g.*, grad_fake       gradients of loss_g with respect to G's parameters and to G(z)
  grad_x                    gradient of loss_d_real with respect to x
  g.eval, d.eval_logits     G(z) and D(x) in evaluation mode
  steps.rows, steps.z       u32 (20, 5): the images of minibatch k; (20, 5, 10)
  steps.loss_g, .loss_d     (10), of minibatches 0, 2, ... and 1, 3, ...
  steps.d_g_z2              (10), mean D(G(z)) in G's updates; .d_x, .d_g_z1: mean D(x), mean D(G(z)) in D's
  final.g.*, final.d.*      after ten updates of each, with running statistics that start at mean 0 and variance 1,
                            momentum 0.1, unbiased variance; updated by every pass of G (20) and by D's real passes (10)
  final.adam_g.m.*, .v.*    Adam's moments; likewise adam_d

Minibatch 2k: D on G(z), one Adam step of G; the images are not used. Minibatch 2k + 1: D on the images and on G(z) of
its own z in two passes, one Adam step of D on the sum of the losses.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alternating import Case, make, relu  # noqa: E402

HERE = Path(__file__).parent
N, Z, BASE, POOL, STEPS = 5, 10, 4, 8, 20
EPS, NEGATIVE_SLOPE = 1e-8, 0.2
G_CHANNELS = [8 * BASE, 4 * BASE, 2 * BASE, BASE, 3]  # after the projection, after each block
D_CHANNELS = [3, BASE, 2 * BASE, 4 * BASE, 8 * BASE]  # the image, after each block
BLOCK = {"kernel": 5, "stride": 2, "padding": 2}
CONFIG = {
    "name": "paper64_narrow",
    "height": 64,
    "width": 64,
    "channels": 3,
    "latent": {"size": Z, "distribution": "uniform"},
    "generator": {
        "project_channels": G_CHANNELS[0],
        "project_norm": "unit",  # alias of "per-activation"
        "norm": {"eps": EPS, "affine": True},
        "blocks": [{"channels": c, **BLOCK, "output_padding": 1} for c in G_CHANNELS[1:]],
        "output": "tanh",
    },
    "discriminator": {
        "leak": NEGATIVE_SLOPE,  # alias of "negative_slope"
        "norm": {"eps": EPS, "affine": True},
        "blocks": [{"channels": c, **BLOCK} for c in D_CHANNELS[1:]],
    },
}


def shapes():
    """Shapes of the weight and of the batch norm of every layer of both networks; None without batch norm."""
    g = {"project": ((Z, G_CHANNELS[0], 4, 4), (G_CHANNELS[0], 4, 4))}
    for i, (before, after) in enumerate(zip(G_CHANNELS, G_CHANNELS[1:])):
        g[f"blocks.{i}"] = ((before, after, 5, 5), (after,) if i < 3 else None)
    d = {}
    for i, (before, after) in enumerate(zip(D_CHANNELS, D_CHANNELS[1:])):
        d[f"blocks.{i}"] = ((after, before, 5, 5), (after,) if i > 0 else None)
    d["head"] = ((1, D_CHANNELS[-1], 4, 4), None)
    return {"g": g, "d": d}


def draw():
    """All inputs, as numpy: initial parameters, images, latents."""
    rng = np.random.default_rng(27)
    out = {}
    for net, layers in shapes().items():
        for name, (weight, norm) in layers.items():
            std = 0.3 if (net, name) == ("g", "blocks.3") else 0.08  # large enough for tanh to be nonlinear
            out[f"{net}.{name}.conv.weight"] = rng.normal(0, std, weight)
            if norm is not None:
                out[f"{net}.{name}.norm.weight"] = rng.normal(1, 0.1, norm)
                out[f"{net}.{name}.norm.bias"] = rng.normal(0, 0.1, norm)
                out[f"{net}.{name}.norm.running_mean"] = rng.normal(0, 0.2, norm)
                out[f"{net}.{name}.norm.running_var"] = rng.uniform(0.3, 1.5, norm)
    out["z"] = rng.uniform(-1, 1, (N, Z))
    out["steps.z"] = rng.uniform(-1, 1, (STEPS, N, Z))
    out = {key: value.astype(np.float32) for key, value in out.items()}
    coarse = rng.normal(127.5, 50, (POOL, 3, 8, 8)).repeat(8, 2).repeat(8, 3)
    noisy = coarse + rng.normal(0, 20, coarse.shape)
    out["images"] = noisy.round().clip(0, 255).astype(np.uint8)
    out["steps.rows"] = ((3 * np.arange(STEPS)[:, None] + np.arange(N)) % POOL).astype(np.uint32)
    return out


def norm(p, name, x, given, stats):
    """Batch norm with the `given` statistics, or with those of the minibatch (biased variance), stored in `stats`."""
    weight, bias = p[f"{name}.norm.weight"], p[f"{name}.norm.bias"]
    axes = (0,) if weight.dim() == 3 else (0, 2, 3)
    broadcast = lambda t: t if t.dim() == 3 else t[:, None, None]
    if given is None:
        mean = x.mean(axes)
        variance = ((x - broadcast(mean)) ** 2).mean(axes)
        stats[f"{name}.mean"], stats[f"{name}.variance"] = mean, variance
    else:
        mean, variance = given[f"{name}.norm.running_mean"], given[f"{name}.norm.running_var"]
    x = (x - broadcast(mean)) / torch.sqrt(broadcast(variance) + EPS)
    return x * broadcast(weight) + broadcast(bias)


def run_g(p, z, y=None, given=None):
    """G(z), every activation, minibatch statistics."""
    outs, stats = {}, {}
    x = torch.einsum("nz,zchw->nchw", z, p["project.conv.weight"])
    x = outs["project"] = relu(norm(p, "project", x, given, stats))
    for i in range(4):
        name = f"blocks.{i}"
        x = F.conv_transpose2d(x, p[f"{name}.conv.weight"], stride=2, padding=2, output_padding=1)
        x = outs[name] = torch.tanh(x) if i == 3 else relu(norm(p, name, x, given, stats))
    return x, outs, stats


def run_d(p, x, y=None, given=None):
    """Logits (n), every activation, minibatch statistics."""
    outs, stats = {}, {}
    for i in range(4):
        name = f"blocks.{i}"
        x = F.conv2d(x, p[f"{name}.conv.weight"], stride=2, padding=2)
        x = outs[name] = relu(x if i == 0 else norm(p, name, x, given, stats), NEGATIVE_SLOPE)
    return x.flatten(1) @ p["head.conv.weight"].flatten(), outs, stats


CASE = Case(
    folder=HERE,
    config=CONFIG,
    n=N,
    run_g=run_g,
    run_d=run_d,
    to_range=lambda images: images / np.float32(127.5) - np.float32(1),
    weight_decay=1e-5,
)

if __name__ == "__main__":
    make(CASE, draw())
