"""Linear SVM: fit time of scikit-learn's LinearSVC with its defaults against the example `fit` of dcgan-svm.

Runs alternate; times are medians of several rounds.

Run: cargo build --release -p dcgan-svm --example fit
     python3 svm_speed.py [--features FILE] [--rows 1000 --width 7168] [--c 1e-3 1e-2] [--rounds 3] [--tolerance 1e-5]
     (scikit-learn, numpy, safetensors)

FILE is a safetensors file with `features` (rows, width) in F32 and `labels` (rows) in U32. Without one, features are
generated: non-negative, unscaled, correlated, with a large mean, ten classes. The table has seconds of fitting, without
reading, and the sum of the classes' objectives 1/2 (|w|^2 + b^2) + C sum max(0, 1 - y (w x + b))^2 in float64. `fit`
must reach an objective of at most 1 + 1e-6 times LinearSVC's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.svm import LinearSVC

ROOT = Path(__file__).resolve().parents[2]


def generate(rows, width, path):
    """Rectified mixtures of 400 latent values with decaying weights, with offsets and scales per column."""
    rng = np.random.default_rng(0)
    hidden, classes = 400, 10
    y = rng.permutation(np.arange(rows) % classes)
    decaying = np.arange(1, hidden + 1) ** -0.6
    mix = (rng.normal(0, 1, (hidden, width)) * decaying[:, None]).astype(np.float32)
    centers = rng.normal(0, 0.35, (classes, hidden))
    offset = rng.normal(0.3, 0.5, width).astype(np.float32)
    scale = rng.gamma(2, 0.2, width).astype(np.float32)
    x = np.empty((rows, width), np.float32)
    for start in range(0, rows, 1000):
        rows_slice = slice(start, min(start + 1000, rows))
        latent = (centers[y[rows_slice]] + rng.normal(0, 1, (len(y[rows_slice]), hidden))).astype(np.float32)
        noise = rng.normal(0, 0.4, (len(latent), width)).astype(np.float32)
        x[rows_slice] = np.maximum((latent @ mix + noise + offset) * scale, 0)
    save_file({"features": x, "labels": y.astype(np.uint32)}, path)


def scikit(x, y, c):
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearSVC(C=c).fit(x, y)
    return time.perf_counter() - start, model.coef_, model.intercept_


def objective(x, y, c, weights, intercepts):
    total = 0.5 * ((weights**2).sum() + (intercepts**2).sum())
    for start in range(0, len(x), 1000):
        rows_slice = slice(start, start + 1000)
        decision = x[rows_slice].astype(np.float64) @ weights.T + intercepts
        signs = np.where(y[rows_slice, None] == np.unique(y), 1, -1)
        total += c * (np.maximum(0, 1 - signs * decision) ** 2).sum()
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--width", type=int, default=7168)
    parser.add_argument("--c", type=float, nargs="+", default=[1e-3, 1e-2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tolerance", default="1e-5", help="tolerance of fit; LinearSVC uses its default")
    parser.add_argument("--fit", type=Path, default=ROOT / "target/release/examples/fit")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = options.features or Path(folder) / "features.safetensors"
        if options.features is None:
            generate(options.rows, options.width, path)
        data = load_file(path)
        x, y = data["features"], data["labels"].astype(np.int64)
        print(
            f"{x.shape[0]} x {x.shape[1]}, {len(np.unique(y))} classes, mean {x[:1000].mean():.3f}, rounds {options.rounds}"
        )
        print("| C | LinearSVC, s | its objective | fit, s | its objective | passes | faster |")
        print("|---|---|---|---|---|---|---|")
        for c in options.c:
            theirs, ours = [], []
            for _ in range(options.rounds):
                seconds, weights, intercepts = scikit(x, y, c)
                theirs.append((seconds, objective(x, y, c, weights, intercepts)))
                found = json.loads(subprocess.check_output([options.fit, path, str(c), "automatic", options.tolerance]))
                ours.append((found["seconds"], sum(found["objectives"]), found["passes"]))
            their_time, our_time = (statistics.median(run[0] for run in runs) for runs in (theirs, ours))
            their_best, ours_worst = min(run[1] for run in theirs), max(run[1] for run in ours)
            print(
                f"| {c:g} | {their_time:.2f} | {their_best:.7g} | {our_time:.3f} | {ours_worst:.7g} | {ours[0][2]} "
                f"| {their_time / our_time:.0f}x |",
                flush=True,
            )
            if ours_worst > their_best * (1 + 1e-6):
                sys.exit(f"  the objective of fit is higher by {ours_worst / their_best - 1:.1e}")


if __name__ == "__main__":
    main()
