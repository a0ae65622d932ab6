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

import json
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).parent
N, Z, BASE, POOL, STEPS, EVERY, WHOLE = 5, 10, 4, 8, 20, 11, 1024
EPS, NEGATIVE_SLOPE, MOMENTUM = 1e-8, 0.2, 0.1
MAGNITUDES = []  # smallest magnitude of the inputs of each ReLU, pass by pass
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


def relu(x, negative_slope=0.0):
    """(Leaky) ReLU that records the smallest magnitude of its inputs."""
    MAGNITUDES.append(x.detach().abs().min().item())
    return F.leaky_relu(x, negative_slope)


def run_g(p, z, given=None):
    """G(z), every activation, minibatch statistics."""
    outs, stats = {}, {}
    x = torch.einsum("nz,zchw->nchw", z, p["project.conv.weight"])
    x = outs["project"] = relu(norm(p, "project", x, given, stats))
    for i in range(4):
        name = f"blocks.{i}"
        x = F.conv_transpose2d(x, p[f"{name}.conv.weight"], stride=2, padding=2, output_padding=1)
        x = outs[name] = torch.tanh(x) if i == 3 else relu(norm(p, name, x, given, stats))
    return x, outs, stats


def run_d(p, x, given=None):
    """Logits (n), every activation, minibatch statistics."""
    outs, stats = {}, {}
    for i in range(4):
        name = f"blocks.{i}"
        x = F.conv2d(x, p[f"{name}.conv.weight"], stride=2, padding=2)
        x = outs[name] = relu(x if i == 0 else norm(p, name, x, given, stats), NEGATIVE_SLOPE)
    return x.flatten(1) @ p["head.conv.weight"].flatten(), outs, stats


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
    images = inputs["images"].astype(np.float32) / np.float32(127.5) - np.float32(1)
    images = torch.from_numpy(images).to(dtype)
    tensor = lambda key: torch.from_numpy(inputs[key]).to(dtype)
    par, given = {"g": {}, "d": {}}, {"g": {}, "d": {}}
    for key in inputs:
        net, _, name = key.partition(".")
        if net in par:
            trainable = not name.endswith(("running_mean", "running_var"))
            (par if trainable else given)[net][name] = tensor(key).requires_grad_(trainable)
    g, d = par["g"], par["d"]
    z, x = tensor("z"), images[:N].clone().requires_grad_()
    out = {"g.eval": run_g(g, z, given["g"])[0], "d.eval_logits": run_d(d, x, given["d"])[0]}

    # One minibatch: every activation and every gradient, without an update.
    passes = {"g": run_g(g, z), "d_real": run_d(d, x)}
    fake, real_logits = passes["g"][0], passes["d_real"][0]
    passes["d_fake"] = run_d(d, fake)
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
    adam = lambda p: torch.optim.Adam(p.values(), lr=2e-4, betas=(0.5, 0.999), eps=1e-8, weight_decay=1e-5)
    optimizer = {"g": adam(g), "d": adam(d)}
    start = lambda key, like: torch.full_like(like, float(key.endswith("running_var")))
    running = {net: {k: start(k, v) for k, v in tensors.items()} for net, tensors in given.items()}
    log = {"loss_g": [], "loss_d": [], "d_x": [], "d_g_z1": [], "d_g_z2": []}
    for k, (rows, z) in enumerate(zip(inputs["steps.rows"], tensor("steps.z"))):
        fake, outs, stats = run_g(g, z)
        update_running_stats(running["g"], stats, outs)
        if k % 2 == 0:
            fake_logits, _, _ = run_d(d, fake)
            loss, net = bce(fake_logits, 1.0), "g"
            log["d_g_z2"].append(fake_logits.sigmoid().mean())
        else:
            real_logits, outs, stats = run_d(d, images[torch.from_numpy(rows.astype(np.int64))])
            update_running_stats(running["d"], stats, outs)
            fake_logits, _, _ = run_d(d, fake.detach())
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
        group = re.sub(r"\.(project|blocks|head)(\..*)?$", "", key)
        off = np.abs(single[key] - value).max() / max(np.abs(value).max(), 1e-30)
        worst[group] = max(worst.get(group, (0.0, "")), (float(off), key))
    for group, (off, key) in sorted(worst.items()):
        print(f"  {group:24} {off:.1e}  {key}")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    inputs = draw()
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
