"""The networks of pytorch/examples dcgan at 64x64 with ngf = ndf = 4: `case.safetensors` and `config.json`.

Inputs and parameters are float32. Everything is computed in float64 and stored as float32. At the end the script
repeats the computation in float32 and prints the largest difference per group, the lower bound of a tolerance. The
seed was chosen among about 200 so that no input of a ReLU is close to 0, in the ten steps too. An input that rounds
to the other side of 0 changes a gradient discontinuously, and Adam spreads the change.

Run: python3 make.py        (torch, numpy, safetensors; a few seconds on one core)

Shapes: n = 4 images in a minibatch, z of 10 from N(0, 1). A tensor of more than 1024 values, except inputs and
initial parameters, is stored as `<key>.every11`: its values 0, 11, 22, ... in row-major order. 11 divides no dimension,
so the values cover each channel, row and column.

  images                    u8 (8, 3, 64, 64); an image is images / 127.5 - 1, in float32
  x                         the first 4 images, so not stored; z is (4, 10)
  g.*, d.*                  initial parameters: <layer>.conv.weight, .norm.weight, .norm.bias; and
                            <layer>.norm.running_mean, .norm.running_var, the running statistics for evaluation mode
  g.out.<layer>             activations of G(z) in training mode; likewise d_real (of x), d_fake (of G(z))
  g.stat.<layer>.mean       minibatch statistics; .variance, biased; likewise d_real, d_fake
  d_real.logits             (4); likewise d_fake
  loss_d_real, loss_d_fake  mean binary cross-entropy with target 1 and 0; loss_d is their sum
  loss_g                    target 1 on d_fake.logits
  grad_d.*                  gradients of loss_d with respect to D's parameters
  grad_g.*, grad_fake       gradients of loss_g with respect to G's parameters and to G(z)
  grad_x                    gradient of loss_d_real with respect to x
  g.eval, d.eval_logits     G(z) and D(x) in evaluation mode
  steps.rows, steps.z       u32 (10, 4): the images of step k; (10, 4, 10)
  steps.loss_d, .loss_g     (10); .d_x, .d_g_z1, .d_g_z2: mean D(x), mean D(G(z)) before and after D's step
  final.g.*, final.d.*      after ten steps, with running statistics that start at mean 0 and variance 1, momentum 0.1,
                            unbiased variance; updated by G's pass of each step and by D's pass on real images
  final.adam_g.m.*, .v.*    Adam's moments; likewise adam_d

A step: D on real images and on G(z) in two passes, one Adam step of D on the sum of the losses; then a new pass of D on
the same G(z), one Adam step of G.
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
N, Z, BASE, POOL, STEPS, EVERY, WHOLE = 4, 10, 4, 8, 10, 11, 1024
G_NAMES = ["project", "blocks.0", "blocks.1", "blocks.2", "blocks.3"]
D_NAMES = ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "head"]
CONFIG = {
    "name": "pytorch64_narrow",
    "height": 64,
    "width": 64,
    "channels": 3,
    "latent": {"size": Z, "distribution": "normal"},
    "generator": {
        "project_channels": 8 * BASE,
        "project_norm": "channel",  # alias of "per-channel"
        "norm": {"eps": 1e-5, "affine": True},
        "blocks": [{"channels": c, "kernel": 4, "stride": 2, "padding": 1} for c in (4 * BASE, 2 * BASE, BASE, 3)],
        "output": "tanh",
    },
    "discriminator": {
        "leak": 0.2,  # alias of "negative_slope"
        "norm": {"eps": 1e-5, "affine": True},
        "blocks": [{"channels": k * BASE, "kernel": 4, "stride": 2, "padding": 1} for k in (1, 2, 4, 8)],
    },
}


def generator():
    def up(i, o, stride, padding):
        return [nn.ConvTranspose2d(i, o, 4, stride, padding, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

    b = BASE
    return nn.Sequential(
        *up(Z, 8 * b, 1, 0),
        *up(8 * b, 4 * b, 2, 1),
        *up(4 * b, 2 * b, 2, 1),
        *up(2 * b, b, 2, 1),
        nn.ConvTranspose2d(b, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def discriminator():
    def down(i, o):
        return [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]

    b = BASE
    return nn.Sequential(
        nn.Conv2d(3, b, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2),
        *down(b, 2 * b),
        *down(2 * b, 4 * b),
        *down(4 * b, 8 * b),
        nn.Conv2d(8 * b, 1, 4, 1, 0, bias=False),
    )


def named(net, names):
    """Parameters and running statistics of `net`, with the names of this project."""
    parameters, statistics, layer = {}, {}, iter(names)
    for module in net:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            name = next(layer)
            parameters[f"{name}.conv.weight"] = module.weight
        elif isinstance(module, nn.BatchNorm2d):
            parameters[f"{name}.norm.weight"], parameters[f"{name}.norm.bias"] = module.weight, module.bias
            statistics[f"{name}.norm.running_mean"] = module.running_mean
            statistics[f"{name}.norm.running_var"] = module.running_var
    return parameters, statistics


def trace(net, names, x):
    """The output of `net`, every activation and the minibatch statistics of the inputs of every batch norm."""
    outs, stats, layer = {}, {}, iter(names)
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            stats[f"{name}.mean"] = x.mean((0, 2, 3))
            stats[f"{name}.variance"] = x.var((0, 2, 3), unbiased=False)
        x = module(x)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            name = next(layer)
        elif not isinstance(module, nn.BatchNorm2d):
            outs[name] = x
    return x, outs, stats


def momentum(net, value):
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = value


def draw():
    """All inputs, as numpy: initial parameters, images, latents."""
    rng = np.random.default_rng(2)
    out = {}
    for net, prefix, names in ((generator(), "g", G_NAMES), (discriminator(), "d", D_NAMES)):
        parameters, statistics = named(net, names)
        for name, tensor in (parameters | statistics).items():
            shape = tuple(tensor.shape)
            # Large enough for tanh to be nonlinear.
            std = 0.4 if (prefix, name) == ("g", "blocks.3.conv.weight") else 0.1
            value = {
                "conv.weight": lambda: rng.normal(0, std, shape),
                "norm.weight": lambda: rng.normal(1, 0.1, shape),
                "norm.bias": lambda: rng.normal(0, 0.1, shape),
                "norm.running_mean": lambda: rng.normal(0, 0.2, shape),
                "norm.running_var": lambda: rng.uniform(0.3, 1.5, shape),
            }[".".join(name.split(".")[-2:])]()
            out[f"{prefix}.{name}"] = value.astype(np.float32)
    coarse = rng.normal(127.5, 50, (POOL, 3, 8, 8)).repeat(8, 2).repeat(8, 3)
    noisy = coarse + rng.normal(0, 20, coarse.shape)
    out["images"] = noisy.round().clip(0, 255).astype(np.uint8)
    out["z"] = rng.normal(size=(N, Z)).astype(np.float32)
    out["steps.rows"] = ((3 * np.arange(STEPS)[:, None] + np.arange(N)) % POOL).astype(np.uint32)
    out["steps.z"] = rng.normal(size=(STEPS, N, Z)).astype(np.float32)
    return out


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def compute(inputs, dtype, relu_hook=lambda _module, _inputs: None):
    torch.manual_seed(0)
    images = inputs["images"].astype(np.float32) / np.float32(127.5) - np.float32(1)
    images = torch.from_numpy(images).to(dtype)
    latent = lambda z: torch.from_numpy(z).to(dtype)[:, :, None, None]  # (n, z, 1, 1)
    net_g, net_d = generator().to(dtype), discriminator().to(dtype)
    for module in (*net_g, *net_d):
        if isinstance(module, (nn.ReLU, nn.LeakyReLU)):
            module.register_forward_pre_hook(relu_hook)
    par_g, run_g = named(net_g, G_NAMES)
    par_d, run_d = named(net_d, D_NAMES)
    for prefix, tensors in (("g", par_g | run_g), ("d", par_d | run_d)):
        for name, tensor in tensors.items():
            tensor.data.copy_(torch.from_numpy(inputs[f"{prefix}.{name}"]))
    out = {}

    # Evaluation mode, with the given running statistics.
    with torch.no_grad():
        out["g.eval"] = net_g.eval()(latent(inputs["z"]))
        out["d.eval_logits"] = net_d.eval()(images[:N]).flatten()
    net_g.train()
    net_d.train()
    for stats in (run_g, run_d):  # the start values of a new run
        for name, tensor in stats.items():
            tensor.fill_(0.0 if name.endswith("running_mean") else 1.0)

    # One minibatch: every activation and every gradient, without an update.
    momentum(net_g, 0.0)
    momentum(net_d, 0.0)
    x = images[:N].clone().requires_grad_()
    fake, outs_g, stats_g = trace(net_g, G_NAMES, latent(inputs["z"]))
    real_logits, outs_real, stats_real = trace(net_d, D_NAMES, x)
    fake_logits, outs_fake, stats_fake = trace(net_d, D_NAMES, fake)
    for key, outs, stats in (
        ("g", outs_g, stats_g),
        ("d_real", outs_real, stats_real),
        ("d_fake", outs_fake, stats_fake),
    ):
        out |= {f"{key}.out.{name}": tensor for name, tensor in outs.items()}
        out |= {f"{key}.stat.{name}": tensor for name, tensor in stats.items()}
    out["d_real.logits"], out["d_fake.logits"] = real_logits.flatten(), fake_logits.flatten()
    loss_real, loss_fake, loss_g = bce(real_logits, 1.0), bce(fake_logits, 0.0), bce(fake_logits, 1.0)
    out |= {"loss_d_real": loss_real, "loss_d_fake": loss_fake, "loss_d": loss_real + loss_fake, "loss_g": loss_g}
    grad = lambda loss, inputs: torch.autograd.grad(loss, inputs, retain_graph=True)
    out["grad_x"] = grad(loss_real, [x])[0]
    out["grad_fake"] = grad(loss_g, [fake])[0]
    out |= {f"grad_d.{k}": g for k, g in zip(par_d, grad(loss_real + loss_fake, list(par_d.values())))}
    out |= {f"grad_g.{k}": g for k, g in zip(par_g, grad(loss_g, list(par_g.values())))}

    # Ten steps.
    adam = lambda parameters: torch.optim.Adam(parameters.values(), lr=2e-4, betas=(0.5, 0.999), eps=1e-8)
    adam_g, adam_d = adam(par_g), adam(par_d)
    momentum(net_g, 0.1)
    log = {"loss_d": [], "loss_g": [], "d_x": [], "d_g_z1": [], "d_g_z2": []}
    for rows, z in zip(inputs["steps.rows"], inputs["steps.z"]):
        fake = net_g(latent(z))
        momentum(net_d, 0.1)
        real_logits = net_d(images[torch.from_numpy(rows.astype(np.int64))])
        momentum(net_d, 0.0)
        fake_logits = net_d(fake.detach())
        loss_d = bce(real_logits, 1.0) + bce(fake_logits, 0.0)
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        generator_logits = net_d(fake)
        loss_g = bce(generator_logits, 1.0)
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        log["loss_d"].append(loss_d)
        log["loss_g"].append(loss_g)
        for key, logits in (("d_x", real_logits), ("d_g_z1", fake_logits), ("d_g_z2", generator_logits)):
            log[key].append(logits.sigmoid().mean())
    out |= {f"steps.{key}": torch.stack(values) for key, values in log.items()}
    for net, parameters, stats, optimizer in (("g", par_g, run_g, adam_g), ("d", par_d, run_d, adam_d)):
        out |= {f"final.{net}.{name}": tensor for name, tensor in (parameters | stats).items()}
        for name, tensor in parameters.items():
            out[f"final.adam_{net}.m.{name}"] = optimizer.state[tensor]["exp_avg"]
            out[f"final.adam_{net}.v.{name}"] = optimizer.state[tensor]["exp_avg_sq"]
    return {key: tensor.detach().numpy() for key, tensor in out.items()}


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
    magnitudes = []
    reference = compute(inputs, torch.float64, lambda _, x: magnitudes.append(x[0].detach().abs().min().item()))
    tensors = inputs | dict(sample(key, value) for key, value in reference.items())
    save_file(dict(sorted(tensors.items())), HERE / "case.safetensors")
    (HERE / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    size = (HERE / "case.safetensors").stat().st_size
    print(f"torch {torch.__version__}: {len(tensors)} tensors, {size} bytes")
    print(f"the smallest magnitude of a ReLU input: {min(magnitudes):.1e}")
    print("largest difference between float32 and float64, relative to the largest value of the tensor:")
    report(reference, compute(inputs, torch.float32))


if __name__ == "__main__":
    main()
