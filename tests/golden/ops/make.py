"""Layers, losses and optimizer steps: `case.safetensors`, and `cases.json`, which describes each row.

Inputs are float32. Everything is computed in float64 and stored as float32. At the end the script repeats the
computation in float32 and prints the largest difference per group, the lower bound of a tolerance.

Run: python3 make.py        (torch, numpy, safetensors; a few seconds on one core)

`cases.json` is an object of five lists; `name` is the prefix of the tensors of a row.

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
  parts   kind, input and output ({channels, height, width}), kernel ([h, w]), stride, padding ([rows, columns]),
          output_padding, bias (true, false), classes (k; 0 for none), and mode, axes, affine, eps, activation as in
          norm; resample in some rows: ["max_pool", k] or ["nearest", k], of x. A layer with all of its parts: x
          resampled, labels concatenated to it, linear operation, bias, batch norm, activation
          .x (n, c, h, w); .labels (n, k) where k > 0, one-hot, in one row mixtures that sum to 1; .weight in PyTorch's
          layout with c + k input channels; .bias (out); .norm_weight, .norm_bias, .mean, .variance as in norm; .y; .dy
          is an input; .dx, .dweight, .dbias, .dnorm_weight, .dnorm_bias
          The labels are k channels after those of x, constant over rows and columns. Padding comes after them: it is
          0 in their channels too. .dx has the channels of x only. In train, .mean contains the bias, and .dbias is
          exactly 0 because the mean removes the bias from y.
          A .dweight of more than 512 values is stored as .dweight.every11: its values 0, 11, 22, ... in row-major
          order. They cover each channel, row and column.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).parent
EVERY, WHOLE = 11, 512

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


def resampled_side(length, resample):
    if resample is None:
        return length
    kind, factor = resample
    return length // factor if kind == "max_pool" else length * factor


def part(
    kind,
    batch,
    shape,
    out,
    kernel,
    stride,
    padding,
    output_padding=0,
    bias=True,
    classes=0,
    norm=(None, False, 0.0),
    activation="identity",
    mode="train",
    resample=None,
):
    """Batch and row of the list `parts`; `norm` is (axes, affine, eps)."""
    map_shape = lambda c, h, w: {"channels": c, "height": h, "width": w}
    resampled = [resampled_side(length, resample) for length in shape[1:]]
    sides = (side(kind, *args, output_padding) for args in zip(resampled, kernel, (stride, stride), padding))
    axes, affine, eps = norm
    return batch, {
        **({"resample": list(resample)} if resample else {}),
        "kind": kind, "input": map_shape(*shape), "output": map_shape(out, *sides), "kernel": list(kernel),
        "stride": stride, "padding": list(padding), "output_padding": output_padding, "bias": bias, "classes": classes,
        "axes": axes, "affine": affine, "eps": eps, "activation": activation, "mode": mode,
    }  # fmt: skip


LEAKY = {"leaky_relu": 0.2}
CHANNEL, ACTIVATION = ("per-channel", True, 1e-5), ("per-activation", True, 1e-8)
CONV_4, CONV_5 = ((4, 4), 2, (1, 1)), ((5, 5), 2, (2, 2))
# kind, batch, input, channels out, kernel, stride, padding
PARTS = [
    # Bias of convolutions.
    part("conv", 2, (3, 4, 4), 5, *CONV_4, activation="tanh"),
    part("conv", 3, (3, 4, 4), 5, *CONV_4, norm=CHANNEL, activation=LEAKY),
    part("conv", 2, (3, 4, 4), 5, *CONV_4, norm=CHANNEL, activation="relu", mode="eval"),
    part("conv", 1, (3, 4, 4), 16, *CONV_4, activation=LEAKY),
    part("conv", 1, (8, 6, 6), 16, *CONV_4, norm=CHANNEL, activation=LEAKY),
    part("conv", 1, (16, 6, 6), 24, *CONV_4, norm=CHANNEL, activation="relu", mode="eval"),
    # Bias of transposed convolutions.
    part("conv_transpose", 1, (16, 2, 2), 3, *CONV_4, activation="tanh"),
    part("conv_transpose", 1, (8, 3, 3), 8, *CONV_4, norm=CHANNEL, activation="relu"),
    part("conv_transpose", 2, (3, 2, 3), 3, *CONV_4, norm=CHANNEL, activation="relu", mode="eval"),
    part("conv_transpose", 2, (3, 3, 2), 2, *CONV_5, output_padding=1, norm=CHANNEL, activation="relu"),
    # G's projection: the kernel is the whole output.
    part("conv_transpose", 4, (6, 1, 1), 4, (3, 2), 1, (0, 0), norm=CHANNEL, activation="relu"),
    part("conv_transpose", 7, (6, 1, 1), 4, (3, 2), 1, (0, 0), norm=ACTIVATION, activation="relu"),
    # D's head: the kernel is the whole input.
    part("conv", 5, (4, 3, 3), 1, (3, 3), 1, (0, 0)),
    part("conv", 3, (5, 2, 3), 4, (2, 3), 1, (0, 0)),
    # Class labels.
    part("conv", 3, (1, 5, 4), 2, *CONV_5, bias=False, classes=10, norm=CHANNEL, activation=LEAKY),
    part("conv", 2, (2, 4, 4), 3, *CONV_4, bias=False, classes=4, activation="tanh"),
    part("conv", 2, (6, 3, 3), 8, (3, 3), 1, (1, 1), bias=False, classes=2, activation=LEAKY),
    part(
        "conv_transpose",
        1,
        (24, 3, 3),
        16,
        (3, 3),
        2,
        (1, 1),
        bias=False,
        classes=10,
        norm=CHANNEL,
        activation="relu",
    ),  # fmt: skip
    part(
        "conv_transpose",
        6,
        (6, 1, 1),
        9,
        (1, 1),
        1,
        (0, 0),
        bias=False,
        classes=3,
        norm=CHANNEL,
        activation="relu",
    ),  # fmt: skip
    part("conv", 4, (5, 3, 3), 1, (3, 3), 1, (0, 0), bias=False, classes=10),
    # Bias, class labels, batch norm and activation.
    part("conv", 3, (3, 4, 4), 4, *CONV_4, classes=4, norm=CHANNEL, activation=LEAKY),
    part("conv", 2, (2, 4, 5), 4, (3, 5), 2, (1, 2), classes=3, norm=CHANNEL, activation=LEAKY, mode="eval"),
    part("conv_transpose", 2, (3, 3, 2), 2, *CONV_5, output_padding=1, classes=3, norm=CHANNEL, activation="relu"),
    part("conv_transpose", 2, (3, 2, 3), 2, *CONV_4, classes=3, norm=CHANNEL, activation="tanh", mode="eval"),
    part("conv_transpose", 7, (6, 1, 1), 4, (2, 2), 1, (0, 0), classes=3, norm=ACTIVATION, activation="relu"),
    part(
        "conv_transpose",
        3,
        (6, 1, 1),
        4,
        (2, 3),
        1,
        (0, 0),
        classes=3,
        norm=ACTIVATION,
        activation="relu",
        mode="eval",
    ),  # fmt: skip
    part("conv", 4, (4, 3, 3), 1, (3, 3), 1, (0, 0), classes=3),
    # Padding of rows and columns.
    part("conv", 2, (3, 3, 5), 2, (1, 7), 1, (0, 3)),
    part("conv", 2, (3, 5, 3), 2, (7, 1), 1, (3, 0), bias=False, activation="tanh"),
    part("conv", 2, (2, 4, 5), 3, (3, 5), 1, (1, 2), norm=CHANNEL, activation="relu"),
    part("conv", 2, (2, 6, 5), 3, (2, 5), 2, (0, 2), bias=False, activation=LEAKY),
    part("conv", 1, (8, 3, 5), 8, (3, 3), 1, (1, 0), activation=LEAKY),
    part("conv_transpose", 2, (2, 4, 3), 3, (3, 5), 1, (1, 2), bias=False),
    part("conv_transpose", 2, (3, 3, 4), 2, (4, 4), 2, (1, 2), activation="tanh"),
    # Pooling and upsampling.
    part("conv", 3, (5, 4, 6), 4, (3, 3), 1, (1, 1), norm=CHANNEL, activation=LEAKY, resample=("max_pool", 2)),
    part("conv", 2, (3, 6, 6), 1, (2, 2), 1, (0, 0), classes=3, activation="tanh", resample=("max_pool", 3)),
    part(
        "conv_transpose",
        3,
        (8, 2, 3),
        8,
        (3, 3),
        1,
        (1, 1),
        norm=CHANNEL,
        activation="relu",
        resample=("nearest", 2),
    ),  # fmt: skip
    part("conv_transpose", 2, (3, 2, 2), 2, *CONV_4, classes=2, activation="tanh", resample=("nearest", 2)),
]
MIXTURES = "parts.15"  # the row whose labels are mixtures


def stats_dims(axes):
    return (0,) if axes == "per-activation" else (0, 2, 3)


def activate(x, activation):
    if isinstance(activation, dict):
        return F.leaky_relu(x, activation["leaky_relu"])
    return {"identity": lambda t: t, "relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation](x)


def linear_map(row, x, weight, bias=None):
    if row["kind"] == "conv":
        return F.conv2d(x, weight, bias, row["stride"], row["padding"])
    return F.conv_transpose2d(x, weight, bias, row["stride"], row["padding"], row["output_padding"])


def linear_part(row, t):
    """The input of batch norm of a row of `parts`. Padding comes after the labels: it is 0 in their channels too."""
    x = t["x"]
    if "resample" in row:
        kind, factor = row["resample"]
        x = F.max_pool2d(x, factor) if kind == "max_pool" else F.interpolate(x, scale_factor=factor)
    if row["classes"]:
        x = torch.cat([x, t["labels"][:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
    return linear_map(row, x, t["weight"], t.get("bias"))


def normalize(row, x, t):
    """The input of the activation. In training mode, the statistics of `x` are stored in `t`."""
    axes = row["axes"]
    if axes is None:
        return x
    broadcast = lambda v: v if axes == "per-activation" else v[:, None, None]
    if row["mode"] == "train":
        t["mean"] = x.mean(stats_dims(axes))
        t["variance"] = x.var(stats_dims(axes), unbiased=False)
    y = (x - broadcast(t["mean"])) / torch.sqrt(broadcast(t["variance"]) + row["eps"])
    return y * broadcast(t["norm_weight"]) + broadcast(t["norm_bias"]) if row["affine"] else y


def doubles(t):
    return {key: torch.from_numpy(value).double() for key, value in t.items()}


def draw_part(i, batch, row):
    """The inputs of a row of `parts` as numpy, from its own random stream: a new row at the end changes no other."""
    rng = np.random.default_rng([2016, i])
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    (c, h, w), (out, *sides), kernel = row["input"].values(), row["output"].values(), row["kernel"]
    classes, joined = row["classes"], c + row["classes"]
    fan_in = joined * kernel[0] * kernel[1] * (1 if row["kind"] == "conv" else h * w / (sides[0] * sides[1]))
    stat = (out, *sides) if row["axes"] == "per-activation" else (out,)
    while True:
        t = {"x": normal(batch, c, h, w)}
        if classes:
            t["labels"] = np.eye(classes, dtype=np.float32)[np.resize(rng.permutation(classes), batch)]
            if row["name"] == MIXTURES:
                t["labels"] = (rng.multinomial(64, [1 / classes] * classes, batch) / 64).astype(np.float32)
        weight = normal(*((out, joined) if row["kind"] == "conv" else (joined, out)), *kernel)
        t["weight"] = weight / np.float32(fan_in**0.5)
        if row["bias"]:
            t["bias"] = normal(out) / 2
        if row["affine"]:
            t["norm_weight"], t["norm_bias"] = 1 + normal(*stat) / 2, normal(*stat) / 2
        if row["axes"] is not None and row["mode"] == "eval":
            t["mean"], t["variance"] = normal(*stat) / 2, rng.uniform(0.5, 1.5, stat).astype(np.float32)
        # No value close to the kink of a ReLU, and no small variance: rounding must not change a gradient.
        values = doubles(t)
        before = normalize(row, linear_part(row, values), values)
        kink = row["activation"] in ("relu", LEAKY) and before.abs().min() < 2e-3
        if not kink and (row["axes"] is None or values["variance"].min() > 0.1):
            break
    t["dy"] = normal(batch, out, *sides)
    return t


def draw():
    """The rows, and the inputs of each as numpy."""
    rng = np.random.default_rng(2016)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    rows, inputs = {"linear": [], "norm": [], "bce": [], "adam": [], "parts": []}, {}
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
            if normalize(row, torch.from_numpy(t["x"]).double(), doubles(t)).abs().min() > 2e-3:
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
    for i, (batch, row) in enumerate(PARTS):
        row = {"name": f"parts.{i:02}"} | row
        rows["parts"].append(row)
        inputs |= {f"{row['name']}.{key}": value for key, value in draw_part(i, batch, row).items()}
    return rows, inputs


def compute(rows, inputs, dtype):
    by_row, out = {}, {}
    for key, value in inputs.items():
        name, _, suffix = key.rpartition(".")
        by_row.setdefault(name, {})[suffix] = torch.from_numpy(value).to(dtype)
    for row in rows["linear"]:
        t = by_row[row["name"]]
        x, weight = t["x"].requires_grad_(), t["weight"].requires_grad_()
        y = linear_map(row, x, weight)
        dx, dweight = torch.autograd.grad(y, [x, weight], t["dy"])
        out |= {f"{row['name']}.{key}": value for key, value in (("y", y), ("dx", dx), ("dweight", dweight))}
    for row in rows["norm"]:
        t = by_row[row["name"]]
        trainable = [key for key in ("x", "norm_weight", "norm_bias") if key in t]
        for key in trainable:
            t[key].requires_grad_()
        result = {"y": activate(normalize(row, t["x"], t), row["activation"])}
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
    for row in rows["parts"]:
        t = by_row[row["name"]]
        trainable = [key for key in ("x", "weight", "bias", "norm_weight", "norm_bias") if key in t]
        for key in trainable:
            t[key].requires_grad_()
        result = {"y": activate(normalize(row, linear_part(row, t), t), row["activation"])}
        gradients = torch.autograd.grad(result["y"], [t[key] for key in trainable], t["dy"])
        result |= {f"d{key}": value for key, value in zip(trainable, gradients)}
        if row["axes"] is not None and row["mode"] == "train":
            result |= {"mean": t["mean"], "variance": t["variance"]}
            if row["bias"]:
                # The minibatch mean contains the bias and removes it: the gradient is a rounding error.
                assert result["dbias"].abs().max() < 1e3 * torch.finfo(dtype).eps, row
                result["dbias"] = torch.zeros_like(result["dbias"])
        out |= {f"{row['name']}.{key}": value for key, value in result.items()}
    return {key: value.detach().numpy() for key, value in out.items()}


def sample(key, value):
    value = value.astype(np.float32)
    if key.startswith("parts.") and key.endswith(".dweight") and value.size > WHOLE:
        return f"{key}.every{EVERY}", value.ravel()[::EVERY]
    return key, value


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
    tensors = inputs | dict(sample(key, value) for key, value in reference.items())
    save_file({key: np.ascontiguousarray(tensors[key]) for key in sorted(tensors)}, HERE / "case.safetensors")
    lists = [f'"{key}": [\n' + ",\n".join(json.dumps(row) for row in value) + "\n]" for key, value in rows.items()]
    (HERE / "cases.json").write_text("{\n" + ",\n".join(lists) + "\n}\n")
    size = (HERE / "case.safetensors").stat().st_size
    print(f"torch {torch.__version__}: {len(tensors)} tensors, {size} bytes,", {k: len(v) for k, v in rows.items()})
    print("largest difference between float32 and float64, relative to the largest value of the tensor:")
    report(reference, compute(rows, inputs, torch.float32))


if __name__ == "__main__":
    main()
