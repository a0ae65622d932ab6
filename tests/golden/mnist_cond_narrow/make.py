"""The authors' class-conditional networks at 28x28 (Newmu/dcgan_code, MNIST), narrow: `case.safetensors` and
`config.json`.

Labels are joined to the input of every layer: to vectors as a one-hot vector, to maps as a constant map per class. Each
network has a hidden dense layer. Batch norm has no weight and bias, eps 1e-8, per activation after the projection; z
from U(-1, 1); images in [0, 1], sigmoid; coupled L2 of 2.5e-5; each minibatch updates either G or D, G first, and G
takes the labels of the minibatch. A dense layer on a map is written here as in the authors' code: the map is flattened,
the labels are appended, and one matrix multiplies the whole. The matrix is stored in two parts, `conv.weight` for the
map and `label.weight` for the labels.

Everything else, the keys, the precision and the choice of the seed are those of ../paper64_narrow/make.py, with n = 9 of 13 images,
z of 6, three classes, and the keys

  labels                    u32 (9), of x and z
  steps.labels              u32 (20, 9)

Run: python3 make.py        (torch, numpy, safetensors; a few seconds on one core)
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).parent
N, Z, CLASSES, POOL, STEPS, EVERY, WHOLE = 9, 6, 3, 13, 20, 11, 1024
EPS, NEGATIVE_SLOPE, MOMENTUM, SEED = 1e-8, 0.2, 0.1, 1
G_DENSE, G_MAP, G_BLOCK, D_BLOCKS, D_DENSE = 12, 6, 4, (4, 6), 10
MAGNITUDES = []  # smallest magnitude of the inputs of each ReLU, pass by pass
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


def relu(x, negative_slope=0.0):
    """(Leaky) ReLU that records the smallest magnitude of its inputs."""
    MAGNITUDES.append(x.detach().abs().min().item())
    return F.leaky_relu(x, negative_slope)


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


def update_running_stats(running, stats, outs):
    """running = 0.9 running + 0.1 minibatch, with the unbiased variance of the minibatch."""
    for key in running:
        name, _, suffix = key.rsplit(".", 2)
        count = outs[name].numel() // running[key].numel()
        statistic, scale = ("variance", count / (count - 1)) if suffix == "running_var" else ("mean", 1.0)
        minibatch = stats[f"{name}.{statistic}"].detach()
        running[key] = (1 - MOMENTUM) * running[key] + MOMENTUM * scale * minibatch


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def compute(inputs, dtype):
    images = inputs["images"].astype(np.float32) / np.float32(255)
    one_hot = lambda labels: F.one_hot(torch.from_numpy(labels.astype(np.int64)), CLASSES).to(dtype)
    images = torch.from_numpy(images).to(dtype)
    tensor = lambda key: torch.from_numpy(inputs[key]).to(dtype)
    par, given = {"g": {}, "d": {}}, {"g": {}, "d": {}}
    for key in inputs:
        net, _, name = key.partition(".")
        if net in par:
            trainable = not name.endswith(("running_mean", "running_var"))
            (par if trainable else given)[net][name] = tensor(key).requires_grad_(trainable)
    g, d = par["g"], par["d"]
    z, x, y = tensor("z"), images[:N].clone().requires_grad_(), one_hot(inputs["labels"])
    out = {"g.eval": run_g(g, z, y, given["g"])[0], "d.eval_logits": run_d(d, x, y, given["d"])[0]}

    # One minibatch: every activation and every gradient, without an update.
    passes = {"g": run_g(g, z, y), "d_real": run_d(d, x, y)}
    fake, real_logits = passes["g"][0], passes["d_real"][0]
    passes["d_fake"] = run_d(d, fake, y)
    fake_logits = passes["d_fake"][0]
    for key, (_, outs, stats) in passes.items():
        out |= {f"{key}.out.{name}": value for name, value in outs.items()}
        out |= {f"{key}.stat.{name}": value for name, value in stats.items()}
    out["d_real.logits"], out["d_fake.logits"] = real_logits, fake_logits
    loss_real, loss_fake, loss_g = bce(real_logits, 1.0), bce(fake_logits, 0.0), bce(fake_logits, 1.0)
    out |= {"loss_d_real": loss_real, "loss_d_fake": loss_fake, "loss_d": loss_real + loss_fake, "loss_g": loss_g}
    grad = lambda loss, inputs: torch.autograd.grad(loss, inputs, retain_graph=True)
    out["grad_x"] = grad(loss_real, [x])[0]
    out["grad_fake"] = grad(loss_g, [fake])[0]
    out |= {f"grad_d.{k}": v for k, v in zip(d, grad(loss_real + loss_fake, list(d.values())))}
    out |= {f"grad_g.{k}": v for k, v in zip(g, grad(loss_g, list(g.values())))}

    # Twenty minibatches.
    adam = lambda p: torch.optim.Adam(p.values(), lr=2e-4, betas=(0.5, 0.999), eps=1e-8, weight_decay=2.5e-5)
    optimizer = {"g": adam(g), "d": adam(d)}
    start = lambda key, like: torch.full_like(like, float(key.endswith("running_var")))
    running = {net: {k: start(k, v) for k, v in tensors.items()} for net, tensors in given.items()}
    log = {"loss_g": [], "loss_d": [], "d_x": [], "d_g_z1": [], "d_g_z2": []}
    labels = one_hot(inputs["steps.labels"])
    for k, (rows, z, y) in enumerate(zip(inputs["steps.rows"], tensor("steps.z"), labels)):
        fake, outs, stats = run_g(g, z, y)
        update_running_stats(running["g"], stats, outs)
        if k % 2 == 0:
            fake_logits, _, _ = run_d(d, fake, y)
            loss, net = bce(fake_logits, 1.0), "g"
            log["d_g_z2"].append(fake_logits.sigmoid().mean())
        else:
            real_logits, outs, stats = run_d(d, images[torch.from_numpy(rows.astype(np.int64))], y)
            update_running_stats(running["d"], stats, outs)
            fake_logits, _, _ = run_d(d, fake.detach(), y)
            loss, net = bce(real_logits, 1.0) + bce(fake_logits, 0.0), "d"
            log["d_x"].append(real_logits.sigmoid().mean())
            log["d_g_z1"].append(fake_logits.sigmoid().mean())
        optimizer[net].zero_grad()
        loss.backward()
        optimizer[net].step()
        log[f"loss_{net}"].append(loss)
    out |= {f"steps.{key}": torch.stack(values) for key, values in log.items()}
    for net, parameters in par.items():
        out |= {f"final.{net}.{name}": value for name, value in (parameters | running[net]).items()}
        for name, value in parameters.items():
            out[f"final.adam_{net}.m.{name}"] = optimizer[net].state[value]["exp_avg"]
            out[f"final.adam_{net}.v.{name}"] = optimizer[net].state[value]["exp_avg_sq"]
    return {key: value.detach().numpy() for key, value in out.items()}


def sample(key, value):
    value = value.astype(np.float32)
    return (f"{key}.every{EVERY}", value.ravel()[::EVERY].copy()) if value.size > WHOLE else (key, value)


def report(reference, single):
    """Prints, per group of keys, the largest |difference| divided by the largest value of the tensor."""
    worst = {}
    for key, value in reference.items():
        group = re.sub(r"\.(project|blocks|dense|head)(\..*)?$", "", key)
        off = np.abs(single[key] - value).max() / max(np.abs(value).max(), 1e-30)
        worst[group] = max(worst.get(group, (0.0, "")), (float(off), key))
    for group, (off, key) in sorted(worst.items()):
        print(f"  {group:24} {off:.1e}  {key}")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    inputs = draw(SEED)
    reference = compute(inputs, torch.float64)
    smallest = min(MAGNITUDES)
    tensors = inputs | dict(sample(key, value) for key, value in reference.items())
    save_file(dict(sorted(tensors.items())), HERE / "case.safetensors")
    (HERE / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    size = (HERE / "case.safetensors").stat().st_size
    print(f"torch {torch.__version__}: {len(tensors)} tensors, {size} bytes")
    print(f"the smallest magnitude of a ReLU input: {smallest:.1e}")
    print("largest difference between float32 and float64, relative to the largest value of the tensor:")
    report(reference, compute(inputs, torch.float32))


if __name__ == "__main__":
    main()
