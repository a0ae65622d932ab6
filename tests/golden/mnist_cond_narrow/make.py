"""The authors' class-conditional networks at 28x28 (Newmu/dcgan_code, MNIST), narrow: `case.safetensors` and
`config.json`.

Labels are concatenated to the input of every layer: to vectors as a one-hot vector, to maps as a constant map per
class. Each network has a hidden dense layer. Batch norm has no weight and bias, eps 1e-8, per activation after the
projection; z from U(-1, 1); images in [0, 1], sigmoid; coupled L2 of 2.5e-5; each minibatch updates either G or D, G
first, and G takes the labels of the minibatch. A dense layer on a map is written here as in the authors' code: the map
is flattened, the labels are appended, and one matrix multiplies the whole. The matrix is stored in two parts,
`conv.weight` for the map and `label.weight` for the labels.

Everything else, the keys, the precision and the choice of the seed are those of ../paper64_narrow/make.py, with n = 9
of 13 images, z of 6, three classes, and the keys

  labels                    u32 (9), of x and z
  steps.labels              u32 (20, 9)

Run: python3 make.py        (torch, numpy, safetensors; a few seconds on one core)
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alternating import Case, make, relu  # noqa: E402

HERE = Path(__file__).parent
N, Z, CLASSES, POOL, STEPS = 9, 6, 3, 13, 20
EPS, NEGATIVE_SLOPE, SEED = 1e-8, 0.2, 1
G_DENSE, G_MAP, G_BLOCK, D_BLOCKS, D_DENSE = 12, 6, 4, (4, 6), 10
BLOCK = {"kernel": 5, "stride": 2, "padding": 2}
CONFIG = {
    "version": 2,
    "name": "mnist_cond_narrow",
    "height": 28,
    "width": 28,
    "channels": 1,
    "classes": CLASSES,
    "latent": {"size": Z, "distribution": "uniform"},
    "generator": {
        "dense": [G_DENSE],
        "project_channels": G_MAP,
        "project_norm": "per-activation",
        "norm": {"eps": EPS, "affine": False},
        "blocks": [{"channels": c, **BLOCK, "output_padding": 1} for c in (G_BLOCK, 1)],
        "output": "sigmoid",
    },
    "discriminator": {
        "negative_slope": NEGATIVE_SLOPE,
        "norm": {"eps": EPS, "affine": False},
        "blocks": [{"channels": c, **BLOCK} for c in D_BLOCKS],
        "dense": [D_DENSE],
    },
}


def shapes():
    """Shapes of the weights and of the running statistics of every layer of both networks; None without them."""
    y = CLASSES
    g = {
        "dense.0": {"conv": (Z + y, G_DENSE, 1, 1), "norm": (G_DENSE,)},
        "project": {"conv": (G_DENSE + y, G_MAP, 7, 7), "norm": (G_MAP, 7, 7)},
        "blocks.0": {"conv": (G_MAP + y, G_BLOCK, 5, 5), "norm": (G_BLOCK,)},
        "blocks.1": {"conv": (G_BLOCK + y, 1, 5, 5)},
    }
    d = {
        "blocks.0": {"conv": (D_BLOCKS[0], 1 + y, 5, 5)},
        "blocks.1": {"conv": (D_BLOCKS[1], D_BLOCKS[0] + y, 5, 5), "norm": (D_BLOCKS[1],)},
        "dense.0": {"conv": (D_DENSE, D_BLOCKS[1], 7, 7), "label": (D_DENSE, y), "norm": (D_DENSE,)},
        "head": {"conv": (1, D_DENSE + y, 1, 1)},
    }
    return {"g": g, "d": d}


def draw(seed):
    """All inputs, as numpy: initial parameters, images, latents, labels."""
    rng = np.random.default_rng(seed)
    out = {}
    for net, layers in shapes().items():
        for name, of_layer in layers.items():
            out[f"{net}.{name}.conv.weight"] = rng.normal(0, 0.15, of_layer["conv"])
            if "label" in of_layer:
                out[f"{net}.{name}.label.weight"] = rng.normal(0, 0.3, of_layer["label"])
            if "norm" in of_layer:
                out[f"{net}.{name}.norm.running_mean"] = rng.normal(0, 0.2, of_layer["norm"])
                out[f"{net}.{name}.norm.running_var"] = rng.uniform(0.3, 1.5, of_layer["norm"])
    out["z"] = rng.uniform(-1, 1, (N, Z))
    out["steps.z"] = rng.uniform(-1, 1, (STEPS, N, Z))
    out = {key: value.astype(np.float32) for key, value in out.items()}
    coarse = rng.normal(127.5, 50, (POOL, 1, 7, 7)).repeat(4, 2).repeat(4, 3)
    noisy = coarse + rng.normal(0, 20, coarse.shape)
    out["images"] = noisy.round().clip(0, 255).astype(np.uint8)
    out["steps.rows"] = ((3 * np.arange(STEPS)[:, None] + np.arange(N)) % POOL).astype(np.uint32)
    classes = rng.integers(0, CLASSES, POOL).astype(np.uint32)
    out["labels"], out["steps.labels"] = classes[:N], classes[out["steps.rows"]]
    return out


def norm(name, x, given, stats):
    """Batch norm with the `given` statistics, or with those of the minibatch (biased variance), stored in `stats`."""
    axes = (0,) if x.dim() == 2 or name == "project" else (0, 2, 3)
    broadcast = lambda t: t[:, None, None] if len(axes) == 3 else t
    if given is None:
        mean = x.mean(axes)
        variance = ((x - broadcast(mean)) ** 2).mean(axes)
        stats[f"{name}.mean"], stats[f"{name}.variance"] = mean, variance
    else:
        mean, variance = given[f"{name}.norm.running_mean"], given[f"{name}.norm.running_var"]
    return (x - broadcast(mean)) / torch.sqrt(broadcast(variance) + EPS)


def join(x, y):
    """Labels as further inputs of a vector, or as constant maps (the authors' conv_cond_concat)."""
    return torch.cat([x, y if x.dim() == 2 else y[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)


def run_g(p, z, y, given=None):
    """G(z), every activation, minibatch statistics."""
    outs, stats = {}, {}
    x = join(z, y) @ p["dense.0.conv.weight"][:, :, 0, 0]
    x = relu(norm("dense.0", x, given, stats))
    outs["dense.0"] = x[:, :, None, None]
    x = torch.einsum("nz,zchw->nchw", join(x, y), p["project.conv.weight"])
    x = outs["project"] = relu(norm("project", x, given, stats))
    x = F.conv_transpose2d(join(x, y), p["blocks.0.conv.weight"], stride=2, padding=2, output_padding=1)
    x = outs["blocks.0"] = relu(norm("blocks.0", x, given, stats))
    x = F.conv_transpose2d(join(x, y), p["blocks.1.conv.weight"], stride=2, padding=2, output_padding=1)
    x = outs["blocks.1"] = torch.sigmoid(x)
    return x, outs, stats


def run_d(p, x, y, given=None):
    """Logits (n), every activation, minibatch statistics."""
    outs, stats = {}, {}
    x = F.conv2d(join(x, y), p["blocks.0.conv.weight"], stride=2, padding=2)
    x = outs["blocks.0"] = relu(x, NEGATIVE_SLOPE)
    x = F.conv2d(join(x, y), p["blocks.1.conv.weight"], stride=2, padding=2)
    x = outs["blocks.1"] = relu(norm("blocks.1", x, given, stats), NEGATIVE_SLOPE)
    whole = torch.cat([p["dense.0.conv.weight"].flatten(1), p["dense.0.label.weight"]], 1)
    x = relu(norm("dense.0", join(x.flatten(1), y) @ whole.T, given, stats), NEGATIVE_SLOPE)
    outs["dense.0"] = x[:, :, None, None]
    return join(x, y) @ p["head.conv.weight"].flatten(), outs, stats


CASE = Case(
    folder=HERE,
    config=CONFIG,
    n=N,
    run_g=run_g,
    run_d=run_d,
    to_range=lambda images: images / np.float32(255),
    weight_decay=2.5e-5,
    classes=CLASSES,
)

if __name__ == "__main__":
    make(CASE, draw(SEED))
