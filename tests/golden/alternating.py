"""What the cases with the authors' update order share: losses, gradients, twenty minibatches, and the files.

Each minibatch updates either G or D, G first. A case is a module with `run_g(p, z, y, given)` and `run_d(p, x, y,
given)`, which return the output, the activations and the minibatch statistics; y is None without classes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

EVERY, WHOLE, MOMENTUM = 11, 1024, 0.1
MAGNITUDES = []  # smallest magnitude of the inputs of each ReLU, pass by pass


@dataclass
class Case:
    folder: Path
    config: dict
    n: int  # images of a minibatch
    run_g: Callable
    run_d: Callable
    to_range: Callable  # bytes as float32 to the values that the networks see
    weight_decay: float
    classes: int = 0


def relu(x, negative_slope=0.0):
    """(Leaky) ReLU that records the smallest magnitude of its inputs."""
    MAGNITUDES.append(x.detach().abs().min().item())
    return F.leaky_relu(x, negative_slope)


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


def compute(case, inputs, dtype):
    run_g, run_d, n = case.run_g, case.run_d, case.n
    images = case.to_range(inputs["images"].astype(np.float32))
    one_hot = lambda labels: F.one_hot(torch.from_numpy(labels.astype(np.int64)), case.classes).to(dtype)
    labels = lambda key: one_hot(inputs[key]) if case.classes else None
    images = torch.from_numpy(images).to(dtype)
    tensor = lambda key: torch.from_numpy(inputs[key]).to(dtype)
    par, given = {"g": {}, "d": {}}, {"g": {}, "d": {}}
    for key in inputs:
        net, _, name = key.partition(".")
        if net in par:
            trainable = not name.endswith(("running_mean", "running_var"))
            (par if trainable else given)[net][name] = tensor(key).requires_grad_(trainable)
    g, d = par["g"], par["d"]
    z, x, y = tensor("z"), images[:n].clone().requires_grad_(), labels("labels")
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
    adam = lambda p: torch.optim.Adam(p.values(), lr=2e-4, betas=(0.5, 0.999), eps=1e-8, weight_decay=case.weight_decay)
    optimizer = {"g": adam(g), "d": adam(d)}
    start = lambda key, like: torch.full_like(like, float(key.endswith("running_var")))
    running = {net: {k: start(k, v) for k, v in tensors.items()} for net, tensors in given.items()}
    log = {"loss_g": [], "loss_d": [], "d_x": [], "d_g_z1": [], "d_g_z2": []}
    steps = len(inputs["steps.rows"])
    ys = labels("steps.labels") if case.classes else [None] * steps
    for k, (rows, z, y) in enumerate(zip(inputs["steps.rows"], tensor("steps.z"), ys)):
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


def make(case, inputs):
    """Writes case.safetensors and config.json, and prints the largest differences of float32."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    reference = compute(case, inputs, torch.float64)
    smallest = min(MAGNITUDES)
    tensors = inputs | dict(sample(key, value) for key, value in reference.items())
    save_file(dict(sorted(tensors.items())), case.folder / "case.safetensors")
    (case.folder / "config.json").write_text(json.dumps(case.config, indent=2) + "\n")
    size = (case.folder / "case.safetensors").stat().st_size
    print(f"torch {torch.__version__}: {len(tensors)} tensors, {size} bytes")
    print(f"the smallest magnitude of a ReLU input: {smallest:.1e}")
    print("largest difference between float32 and float64, relative to the largest value of the tensor:")
    report(reference, compute(case, inputs, torch.float32))
