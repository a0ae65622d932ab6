r"""Checks `dcgan-eval svhn` on the authors' released weights against an independent computation.

  dcgan-eval features --model AUTHORS --preset svhn32 --data SVHN --split train \
      --statistics recalibrate --out train.safetensors
  dcgan-eval features --model AUTHORS --preset svhn32 --data SVHN --split test \
      --statistics recalibrate --out test.safetensors
  dcgan-eval svhn --model AUTHORS --preset svhn32 --data SVHN --baseline none --save-draws draws.json --json
  python3 svhn.py AUTHORS SVHN . --c 5e-4 --draws 20

PyTorch computes the features in float64 from the released .npy files and the publisher's .mat files, with the authors'
procedure (svhn_semisup_analysis.py). The script compares them with the feature files. Then it fits scikit-learn's
LinearSVC to the first draws of draws.json and prints the mean test error, for comparison with the result of dcgan-eval
with the same number of repeats. Needs torch, numpy, scipy, scikit-learn, safetensors.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import scipy.io
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from sklearn.svm import LinearSVC

BATCH = 128


def images(path):
    mat = scipy.io.loadmat(path)
    x = mat["X"].transpose(3, 2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1)
    return torch.from_numpy(x).double(), mat["y"].ravel() % 10


def parameters(folder):
    files = sorted(folder.glob("*discrim_params.jl_*.npy"))
    return [torch.from_numpy(np.load(f)).double() for f in files]


def forward(x, params, statistics=None):
    """Activations of the three blocks, and minibatch statistics of the two with batch norm."""
    w, w2, g2, b2, w3, g3, b3 = params[:7]
    # Theano computes convolutions, PyTorch cross-correlations: rotate the kernels by 180 degrees.
    rotate = lambda k: k.flip(2, 3)
    h = F.leaky_relu(F.conv2d(x, rotate(w), stride=2, padding=2), 0.2)
    activations, minibatch_stats = [h], []
    for i, (k, g, b) in enumerate([(w2, g2, b2), (w3, g3, b3)]):
        h = F.conv2d(h, rotate(k), stride=2, padding=2)
        mean, variance = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        minibatch_stats.append((mean, variance))
        if statistics is not None:
            mean, variance = statistics[i]
        s = (1, -1, 1, 1)
        h = F.leaky_relu((h - mean.view(s)) / torch.sqrt(variance.view(s) + 1e-8) * g.view(s) + b.view(s), 0.2)
        activations.append(h)
    return activations, minibatch_stats


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("authors", type=Path)
    parser.add_argument("svhn", type=Path)
    parser.add_argument("out", type=Path, help="folder with train.safetensors, test.safetensors, draws.json")
    parser.add_argument("--c", type=float, default=5e-4)
    parser.add_argument("--draws", type=int, default=20)
    args = parser.parse_args()

    params = parameters(args.authors)
    train, train_labels = images(args.svhn / "train_32x32.mat")
    test, test_labels = images(args.svhn / "test_32x32.mat")

    def features_of_splits(count):
        """Features of both splits, with batch norm statistics of the first `count` training images."""
        with torch.no_grad():
            batches = [train[i : min(i + BATCH, count)] for i in range(0, count, BATCH)]
            batch_stats = [forward(batch, params)[1] for batch in batches]
            mean = lambda layer, k: sum(s[layer][k] for s in batch_stats) / len(batch_stats)
            statistics = [(mean(i, 0), mean(i, 1)) for i in range(2)]
            pooled = lambda a: F.max_pool2d(a, a.shape[2] // 4).flatten(1)
            rows = lambda x: torch.cat([pooled(a) for a in forward(x, params, statistics)[0]], 1)
            features = lambda x: torch.cat([rows(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]).numpy()
            return {"train": (features(train), train_labels), "test": (features(test), test_labels)}

    for name, (expected, labels) in features_of_splits(len(train)).items():
        ours = load_file(args.out / f"{name}.safetensors")
        difference = np.abs(ours["features"] - expected).max() / np.abs(expected).max()
        same_labels = np.array_equal(ours["labels"], labels)
        print(f"{name}: {expected.shape}, max|a-b|/max|b| {difference:.2e}, labels equal: {same_labels}")

    # The experiment excludes the images that select C from the statistics.
    protocol = json.loads((args.out / "draws.json").read_text())
    draws = protocol["test"][: args.draws]
    (x, y), (xt, yt) = features_of_splits(protocol["held_out"][0]).values()
    errors = []
    for rows in draws:
        svm = LinearSVC(C=args.c).fit(x[rows].astype(np.float32), y[rows])
        errors.append(100 * np.mean(svm.predict(xt.astype(np.float32)) != yt))
    print(
        f"scikit-learn LinearSVC(C={args.c}): mean test error {np.mean(errors):.3f} % over {len(draws)} draws, "
        f"1.96 sigma {1.96 * np.std(errors, ddof=1):.2f}"
    )


main()
