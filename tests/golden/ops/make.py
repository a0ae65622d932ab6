"""Single layers, losses and optimizer steps: `case.safetensors`, and `cases.json`, which describes each row.

Inputs are float32. Everything is computed in float64 and stored as float32. At the end the script repeats the
computation in float32 and prints the largest difference per group, the lower bound of a tolerance.

Run: python3 make.py        (torch, numpy, safetensors; a second on one core)

`cases.json` is an object of four lists; `name` is the prefix of the tensors of a row.

  linear  kind (conv, conv_transpose), batch, input and output ([c, h, w]), kernel ([h, w]), stride, padding,
          output_padding
          .x (n, c, h, w), .weight in PyTorch's layout, .y; .dy is an input; .dx, .dweight
  norm    batch, input, mode (train, eval), axes (per-channel, per-activation, or null: no norm), affine, eps,
          activation
          .x, .norm_weight and .norm_bias where affine, .mean and .variance (inputs in eval; outputs in train, biased
          variance), .y after the activation; .dy is an input; .dx, .dnorm_weight, .dnorm_bias. In eval the statistics
          are constants.
  bce     target; .logits (n), .losses (n), .loss (mean), .probability (mean of sigmoid), .gradient (n) of the mean.
          Far from 0 the tail is far below the float32 epsilon: compare absolutely.
  adam    learning_rate, beta1, beta2, eps, weight_decay (coupled), steps
          .start (c), .gradients (steps, c) before the L2 term, .parameters, .first, .second (steps, c) after each step
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).parent

# kind, batch, input, channels out, kernel, stride, padding, output padding
LINEAR = [
    ("conv", 2, (3, 10, 6), 2, (4, 4), 2, 1, 0),
    ("conv", 3, (2, 9, 7), 3, (4, 4), 2, 1, 0),  # odd sizes: fewer patches cover the last row and column
    ("conv", 1, (1, 2, 2), 1, (4, 4), 2, 1, 0),
    ("conv", 1, (17, 9, 9), 19, (4, 4), 2, 1, 0),
    ("conv", 2, (3, 8, 12), 4, (5, 5), 2, 2, 0),
    ("conv", 3, (1, 13, 11), 2, (5, 5), 2, 2, 0),
    ("conv", 1, (5, 2, 4), 7, (5, 5), 2, 2, 0),  # a map smaller than its kernel
    ("conv", 1, (11, 7, 7), 13, (5, 5), 2, 2, 0),
    ("conv", 2, (2, 7, 5), 3, (3, 3), 1, 1, 0),
    ("conv", 1, (33, 5, 5), 2, (3, 3), 1, 1, 0),
    ("conv", 2, (3, 1, 1), 4, (3, 3), 1, 1, 0),
    ("conv", 2, (3, 8, 8), 2, (3, 3), 2, 1, 0),
    ("conv", 3, (2, 7, 9), 5, (3, 3), 2, 1, 0),
    ("conv", 5, (3, 4, 4), 1, (4, 4), 1, 0, 0),  # D's head: the kernel is the whole map
    ("conv", 2, (7, 5, 3), 2, (5, 3), 1, 0, 0),
    ("conv", 2, (3, 1, 1), 4, (1, 1), 1, 0, 0),
    ("conv", 7, (5, 3, 4), 3, (1, 1), 1, 0, 0),
    ("conv_transpose", 2, (3, 5, 3), 2, (4, 4), 2, 1, 0),
    ("conv_transpose", 1, (1, 1, 1), 1, (4, 4), 2, 1, 0),
    ("conv_transpose", 3, (2, 7, 4), 1, (4, 4), 2, 1, 0),
    ("conv_transpose", 1, (17, 4, 4), 19, (4, 4), 2, 1, 0),
    ("conv_transpose", 2, (3, 4, 4), 2, (5, 5), 2, 2, 1),
    ("conv_transpose", 3, (2, 3, 5), 3, (5, 5), 2, 2, 1),
    ("conv_transpose", 1, (1, 1, 2), 1, (5, 5), 2, 2, 1),
    ("conv_transpose", 1, (11, 4, 5), 13, (5, 5), 2, 2, 1),
    ("conv_transpose", 2, (2, 4, 3), 3, (5, 5), 2, 2, 0),
    ("conv_transpose", 2, (3, 7, 5), 2, (3, 3), 1, 1, 0),
    ("conv_transpose", 1, (2, 5, 5), 33, (3, 3), 1, 1, 0),
    ("conv_transpose", 2, (2, 3, 4), 3, (3, 3), 2, 1, 1),
    ("conv_transpose", 1, (3, 4, 3), 2, (3, 3), 2, 1, 0),
    ("conv_transpose", 5, (10, 1, 1), 3, (4, 4), 1, 0, 0),  # G's projection
    ("conv_transpose", 1, (7, 1, 1), 2, (7, 7), 1, 0, 0),
    ("conv_transpose", 3, (5, 1, 1), 4, (2, 3), 1, 0, 0),
    ("conv_transpose", 2, (3, 2, 3), 2, (4, 3), 1, 0, 0),
]

ACTIVATIONS = ["identity", "relu", {"leaky_relu": 0.2}, "tanh", "sigmoid"]
# batch, input, mode, axes, affine, eps, activation, mean of x, standard deviation of x
NORM = [
    *((3, (2, 5, 3), "train", None, False, 0.0, activation, 0.0, 1.5) for activation in ACTIVATIONS),
    *((4, (3, 3, 5), "train", "per-channel", True, 1e-5, activation, 0.5, 2.0) for activation in ACTIVATIONS),
    *((4, (3, 3, 5), "eval", "per-channel", True, 1e-5, activation, 0.5, 2.0) for activation in ACTIVATIONS),
    *((5, (2, 2, 3), "train", "per-activation", True, 1e-8, activation, 0.5, 2.0) for activation in ACTIVATIONS),
    *((5, (2, 2, 3), "eval", "per-activation", True, 1e-8, activation, 0.5, 2.0) for activation in ACTIVATIONS),
    (3, (5, 2, 2), "train", "per-channel", False, 1e-5, "relu", 0.0, 1.0),
    (3, (5, 2, 2), "eval", "per-channel", False, 1e-5, "relu", 0.0, 1.0),
    (7, (3, 2, 2), "train", "per-activation", False, 1e-8, {"leaky_relu": 0.2}, 0.0, 1.0),
    (1, (3, 2, 2), "eval", "per-activation", False, 1e-8, {"leaky_relu": 0.2}, 0.0, 1.0),
    (1, (3, 7, 5), "train", "per-channel", True, 1e-8, "relu", 0.0, 1.0),  # one image
    (1, (17, 1, 1), "eval", "per-channel", True, 1e-5, "identity", 0.0, 1.0),
    (2, (1, 11, 13), "train", "per-channel", True, 1e-5, {"leaky_relu": 0.1}, 0.0, 1.0),
    (6, (19, 1, 1), "train", "per-channel", True, 1e-5, "relu", 0.0, 1.0),
    (4, (2, 8, 8), "train", "per-channel", True, 1e-8, "identity", 10.0, 0.2),  # cancellation in E[x^2] - E[x]^2
    (4, (2, 4, 4), "train", "per-channel", True, 1e-2, "identity", 0.0, 0.05),  # eps of the size of the variance
    (4, (2, 4, 4), "eval", "per-channel", True, 1e-2, "identity", 0.0, 0.05),
]

FAR = (20.0, -20.0, 100.0, -100.0)
# logits, target
BCE = [
    *(((logit,), target) for logit in FAR for target in (1.0, 0.0, 0.9)),
    *(((0.0,), target) for target in (1.0, 0.0)),
    *(((0.3, -1.7, 2.5, -0.001, 0.0, 5.0, -8.0), target) for target in (1.0, 0.0, 0.9, 0.1, 0.5)),
    *(((*FAR, 0.5), target) for target in (1.0, 0.0, 0.9)),
]

# learning rate, beta1, beta2, eps, weight decay, scale of the gradients, scale of the parameters
ADAM = [
    (2e-4, 0.5, 0.999, 1e-8, 0.0, 1e-2, 0.1),  # pytorch/examples
    (2e-4, 0.5, 0.999, 1e-8, 1e-5, 1e-2, 0.1),  # the authors
    (5e-4, 0.5, 0.999, 1e-8, 2.5e-5, 1e-5, 1.0),  # L2 of the size of the gradient
    (1e-2, 0.5, 0.999, 1e-8, 0.1, 0.1, 1.0),  # coupled and decoupled decay differ much here
    (1e-3, 0.9, 0.99, 1e-3, 0.0, 1e-3, 1.0),  # eps of the size of the gradient: it is outside the root
    (2e-4, 0.5, 0.999, 1e-8, 0.0, 1e-8, 1.0),
    (2e-4, 0.5, 0.999, 1e-8, 1e-5, 0.0, 1.0),  # the L2 term alone
    (2e-4, 0.5, 0.999, 1e-8, 0.0, 0.0, 1.0),  # the parameters do not change
    (1e-3, 0.5, 0.999, 1e-8, 0.0, 1e6, 10.0),
]
ADAM_VALUES, ADAM_STEPS = 13, 5


def side(kind, length, kernel, stride, padding, extra):
    if kind == "conv":
        return (length + 2 * padding - kernel) // stride + 1
    return (length - 1) * stride + kernel + extra - 2 * padding


def stats_dims(axes):
    return (0,) if axes == "per-activation" else (0, 2, 3)


def activate(x, activation):
    if isinstance(activation, dict):
        return F.leaky_relu(x, activation["leaky_relu"])
    return {"identity": lambda t: t, "relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation](x)


def normalize(row, t):
    """The input of the activation. In training mode, the statistics are stored in `t`."""
    x, axes = t["x"], row["axes"]
    if axes is None:
        return x
    broadcast = lambda v: v if axes == "per-activation" else v[:, None, None]
    if row["mode"] == "train":
        t["mean"] = x.mean(stats_dims(axes))
        t["variance"] = x.var(stats_dims(axes), unbiased=False)
    y = (x - broadcast(t["mean"])) / torch.sqrt(broadcast(t["variance"]) + row["eps"])
    return y * broadcast(t["norm_weight"]) + broadcast(t["norm_bias"]) if row["affine"] else y


def draw():
    """The rows, and the inputs of each as numpy."""
    rng = np.random.default_rng(2016)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    rows, inputs = {"linear": [], "norm": [], "bce": [], "adam": []}, {}
    for i, (kind, batch, (c, h, w), out, kernel, stride, padding, extra) in enumerate(LINEAR):
        output = [out, *(side(kind, a, k, stride, padding, extra) for a, k in zip((h, w), kernel))]
        name = f"linear.{i:02}"
        rows["linear"].append({
            "name": name, "kind": kind, "batch": batch, "input": [c, h, w], "output": output, "kernel": list(kernel),
            "stride": stride, "padding": padding, "output_padding": extra,
        })  # fmt: skip
        inputs[f"{name}.x"] = normal(batch, c, h, w)
        inputs[f"{name}.weight"] = normal(*((out, c) if kind == "conv" else (c, out)), *kernel)
        inputs[f"{name}.dy"] = normal(batch, *output)
    for i, (batch, shape, mode, axes, affine, eps, activation, center, std) in enumerate(NORM):
        name = f"norm.{i:02}"
        row = {
            "name": name, "batch": batch, "input": list(shape), "mode": mode, "axes": axes, "affine": affine,
            "eps": eps, "activation": activation,
        }  # fmt: skip
        rows["norm"].append(row)
        stat = shape if axes == "per-activation" else shape[:1]
        while True:
            t = {"x": normal(batch, *shape) * np.float32(std) + np.float32(center)}
            if affine:
                t["norm_weight"], t["norm_bias"] = 1 + normal(*stat) / 2, normal(*stat) / 2
            if axes is not None and mode == "eval":
                t["mean"] = np.float32(center) + normal(*stat) * np.float32(std / 4)
                t["variance"] = (rng.uniform(0.5, 1.5, stat) * std**2).astype(np.float32)
            # No value close to the kink of a ReLU: rounding must not change a gradient.
            if normalize(row, {k: torch.from_numpy(v).double() for k, v in t.items()}).abs().min() > 2e-3:
                break
        t["dy"] = normal(batch, *shape)
        inputs |= {f"{name}.{key}": value for key, value in t.items()}
    for i, (logits, target) in enumerate(BCE):
        rows["bce"].append({"name": f"bce.{i:02}", "target": target})
        inputs[f"bce.{i:02}.logits"] = np.array(logits, np.float32)
    for i, (rate, beta1, beta2, eps, decay, gradient, parameter) in enumerate(ADAM):
        name = f"adam.{i:02}"
        rows["adam"].append({
            "name": name, "learning_rate": rate, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": decay,
            "steps": ADAM_STEPS,
        })  # fmt: skip
        inputs[f"{name}.start"] = normal(ADAM_VALUES) * np.float32(parameter)
        inputs[f"{name}.gradients"] = normal(ADAM_STEPS, ADAM_VALUES) * np.float32(gradient)
    return rows, inputs


def compute(rows, inputs, dtype):
    by_row, out = {}, {}
    for key, value in inputs.items():
        name, _, suffix = key.rpartition(".")
        by_row.setdefault(name, {})[suffix] = torch.from_numpy(value).to(dtype)
    for row in rows["linear"]:
        t = by_row[row["name"]]
        x, weight = t["x"].requires_grad_(), t["weight"].requires_grad_()
        if row["kind"] == "conv":
            y = F.conv2d(x, weight, stride=row["stride"], padding=row["padding"])
        else:
            y = F.conv_transpose2d(
                x, weight, stride=row["stride"], padding=row["padding"], output_padding=row["output_padding"]
            )
        dx, dweight = torch.autograd.grad(y, [x, weight], t["dy"])
        out |= {f"{row['name']}.{key}": value for key, value in (("y", y), ("dx", dx), ("dweight", dweight))}
    for row in rows["norm"]:
        t = by_row[row["name"]]
        trainable = [key for key in ("x", "norm_weight", "norm_bias") if key in t]
        for key in trainable:
            t[key].requires_grad_()
        result = {"y": activate(normalize(row, t), row["activation"])}
        gradients = torch.autograd.grad(result["y"], [t[key] for key in trainable], t["dy"])
        result |= {f"d{key}": value for key, value in zip(trainable, gradients)}
        if row["axes"] is not None and row["mode"] == "train":
            result |= {"mean": t["mean"], "variance": t["variance"]}
        out |= {f"{row['name']}.{key}": value for key, value in result.items()}
    for row in rows["bce"]:
        logits = by_row[row["name"]]["logits"].requires_grad_()
        losses = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, row["target"]), reduction="none")
        gradient = torch.autograd.grad(losses.mean(), [logits])[0]
        result = {"losses": losses, "loss": losses.mean(), "probability": logits.sigmoid().mean(), "gradient": gradient}
        out |= {f"{row['name']}.{key}": value for key, value in result.items()}
    for row in rows["adam"]:
        t = by_row[row["name"]]
        p = t["start"].clone().requires_grad_()
        adam = torch.optim.Adam(
            [p], row["learning_rate"], (row["beta1"], row["beta2"]), row["eps"], weight_decay=row["weight_decay"]
        )
        after = {"parameters": [], "first": [], "second": []}
        for gradient in t["gradients"]:
            p.grad = gradient.clone()
            adam.step()
            after["parameters"].append(p.detach().clone())
            after["first"].append(adam.state[p]["exp_avg"].clone())
            after["second"].append(adam.state[p]["exp_avg_sq"].clone())
        out |= {f"{row['name']}.{key}": torch.stack(values) for key, values in after.items()}
    return {key: value.detach().numpy() for key, value in out.items()}


def report(reference, single):
    """Prints, per kind of row and tensor, the largest |difference| divided by the largest value (bce: at least 1)."""
    worst = {}
    for key, value in reference.items():
        group = re.sub(r"\.\d+", "", key)
        scale = max(np.abs(value).max(), 1.0 if group.startswith("bce") else 1e-30)
        off = np.abs(single[key] - value).max() / scale
        worst[group] = max(worst.get(group, (0.0, "")), (float(off), key))
    for group, (off, key) in sorted(worst.items()):
        print(f"  {group:24} {off:.1e}  {key}")


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rows, inputs = draw()
    reference = compute(rows, inputs, torch.float64)
    tensors = inputs | {key: value.astype(np.float32) for key, value in reference.items()}
    save_file({key: np.ascontiguousarray(tensors[key]) for key in sorted(tensors)}, HERE / "case.safetensors")
    lists = [f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in value) + "\n]" for key, value in rows.items()]
    (HERE / "cases.json").write_text("{\n" + ",\n".join(lists) + "\n}\n")
    size = (HERE / "case.safetensors").stat().st_size
    print(f"torch {torch.__version__}: {len(tensors)} tensors, {size} bytes,", {k: len(v) for k, v in rows.items()})
    print("largest difference between float32 and float64, relative to the largest value of the tensor:")
    report(reference, compute(rows, inputs, torch.float32))


if __name__ == "__main__":
    main()
