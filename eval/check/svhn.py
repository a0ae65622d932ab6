"""Checks `dcgan-eval svhn` on the authors' released weights against an independent computation.

  dcgan-eval features --model AUTHORS --preset svhn32 --data SVHN --split train --statistics recalibrate --out train.safetensors
  dcgan-eval features --model AUTHORS --preset svhn32 --data SVHN --split test --statistics recalibrate --out test.safetensors
  dcgan-eval svhn --model AUTHORS --preset svhn32 --data SVHN --baseline none --save-draws draws.json --json
  python3 svhn.py AUTHORS SVHN . --c 5e-4 --draws 20

Features are computed by PyTorch in float64 from the released .npy files and the publisher's .mat files, by the
authors' procedure (svhn_semisup_analysis.py), and compared with the files; then scikit-learn's LinearSVC is fitted to
the first draws of draws.json and its mean test error printed beside nothing else: compare it with what dcgan-eval
says for the same number of repeats. Needs torch, numpy, scipy, scikit-learn, safetensors.
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
    """Activations of the three blocks; minibatch statistics of the two with batch-norm."""
    w, w2, g2, b2, w3, g3, b3 = params[:7]
    # Theano convolves: kernels turned by 180 degrees.
    turn = lambda k: k.flip(2, 3)
    h = F.leaky_relu(F.conv2d(x, turn(w), stride=2, padding=2), 0.2)
    activations, found = [h], []
    for i, (k, g, b) in enumerate([(w2, g2, b2), (w3, g3, b3)]):
        h = F.conv2d(h, turn(k), stride=2, padding=2)
        mean, variance = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        found.append((mean, variance))
        if statistics is not None:
            mean, variance = statistics[i]
        s = (1, -1, 1, 1)
        h = F.leaky_relu((h - mean.view(s)) / torch.sqrt(variance.view(s) + 1e-8) * g.view(s) + b.view(s), 0.2)
        activations.append(h)
    return activations, found


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
    def sets(learned):
        """Features of both files with statistics of the first `learned` training images."""
        with torch.no_grad():
            batches = [train[i : min(i + BATCH, learned)] for i in range(0, learned, BATCH)]
            found = [forward(batch, params)[1] for batch in batches]
            mean = lambda layer, k: sum(f[layer][k] for f in found) / len(found)
            statistics = [(mean(i, 0), mean(i, 1)) for i in range(2)]
            pooled = lambda a: F.max_pool2d(a, a.shape[2] // 4).flatten(1)
            rows = lambda x: torch.cat([pooled(a) for a in forward(x, params, statistics)[0]], 1)
            features = lambda x: torch.cat([rows(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]).numpy()
            return {"train": (features(train), train_labels), "test": (features(test), test_labels)}

    for name, (expected, labels) in sets(len(train)).items():
        ours = load_file(args.out / f"{name}.safetensors")
        off = np.abs(ours["features"] - expected).max() / np.abs(expected).max()
        print(f"{name}: {expected.shape}, max|a-b|/max|b| {off:.2e}, labels equal: {np.array_equal(ours['labels'], labels)}")

    # The experiment leaves the images that choose C out of the statistics.
    drawn = json.loads((args.out / "draws.json").read_text())
    draws = drawn["test"][: args.draws]
    (x, y), (xt, yt) = sets(drawn["held_out"][0]).values()
    errors = []
    for rows in draws:
        fitted = LinearSVC(C=args.c).fit(x[rows].astype(np.float32), y[rows])
        errors.append(100 * np.mean(fitted.predict(xt.astype(np.float32)) != yt))
    print(f"scikit-learn LinearSVC(C={args.c}): mean test error {np.mean(errors):.3f} % over {len(draws)} draws, "
          f"1.96 sigma {1.96 * np.std(errors, ddof=1):.2f}")


main()
