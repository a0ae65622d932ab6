"""Linear SVMs of scikit-learn: `case.safetensors`, one set of tensors per problem.

  NAME.x (n, d) and NAME.test_x, float32; NAME.y (n) and NAME.test_y, int64: class numbers
  NAME.c (p), float64; NAME.objective (p, problems), float64: that of LinearSVC's converged weights, in float64;
  NAME.accuracy (p), float64: its accuracy on the test rows

LinearSVC minimizes 1/2 (|w|^2 + b^2) + C sum max(0, 1 - y (w x + b))^2 for each class, or for the greater of two
classes. Both of its solvers run with a tolerance of 1e-6 and 100,000 iterations, and the lower objective of each
problem is kept: with a large C neither of them always converges.

Run: python3 make.py        (scikit-learn 1.9, numpy, safetensors; minutes on one core)
"""

import warnings
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.svm import LinearSVC

HERE = Path(__file__).parent
TESTS = 60


def blobs(rng, n, d, classes, std):
    """Gaussian classes, float32."""
    centers = rng.normal(0, 1, (classes, d))
    y = rng.permutation(np.arange(n) % classes)
    return (centers[y] + rng.normal(0, std, (n, d))).astype(np.float32), y


def features(rng, n, d, classes):
    """Similar to pooled activations: nonnegative, unscaled, correlated, with a large mean."""
    y = rng.permutation(np.arange(n) % classes)
    hidden = rng.normal(0, 1, (classes, 12))[y] + rng.normal(0, 1.2, (n, 12))
    mix = rng.normal(0, 1, (12, d)) * rng.gamma(0.5, 1, (1, d))
    x = np.maximum(hidden @ mix + rng.gamma(2, 1, (1, d)) + rng.normal(0, 0.3, (n, d)), 0)
    return x.astype(np.float32), y


def problems():
    rng = np.random.default_rng(0)
    six = [1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2]

    yield "two_tall", *blobs(rng, 120 + TESTS, 6, 2, 2.0), six
    yield "two_wide", *blobs(rng, 30 + TESTS, 50, 2, 4.0), six
    yield "ten_tall", *blobs(rng, 200 + TESTS, 15, 10, 1.5), [1e-4, 1e-2, 1e0, 1e2]
    yield "ten_wide", *blobs(rng, 60 + TESTS, 90, 10, 3.0), [1e-4, 1e-2, 1e0, 1e1]
    yield "features_tall", *features(rng, 250 + TESTS, 32, 10), [1e-4, 1e-3, 1e-2, 1e-1, 1e0]
    yield "features_wide", *features(rng, 70 + TESTS, 112, 10), [1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e2]

    x, y = blobs(rng, 90 + TESTS, 8, 3, 1.5)
    x[:, 2] = 5.0
    x[:, 5] = 0.0
    yield "constant_columns", x, 4 + 3 * y, [1e-3, 1e0, 1e2]  # classes 4, 7, 10

    x, y = blobs(rng, 60 + TESTS, 7, 3, 1.5)
    x[20:40], y[20:40] = x[:20], y[:20]  # the same rows twice
    y[40:45] = (y[35:40] + 1) % 3
    x[40:45] = x[35:40]  # and with a different class
    yield "duplicates", x, y, [1e-3, 1e0, 1e2]

    x, y = blobs(rng, 80 + TESTS, 9, 3, 1.0)
    y[(y == 2)] = 1
    y[7] = 2  # a single row of its class
    yield "lone_row", x, y, [1e-3, 1e0, 1e2]

    x, y = blobs(rng, 150 + TESTS, 5, 20, 1.0)  # more classes than the kernels have lanes
    yield "twenty", x, y, [1e-2, 1e0]


def objectives(model, x, y, c):
    positives = model.classes_[1:] if len(model.classes_) == 2 else model.classes_
    decision = x @ model.coef_.T + model.intercept_
    signs = np.where(y[:, None] == positives, 1.0, -1.0)
    loss = (np.maximum(0, 1 - signs * decision) ** 2).sum(0)
    return 0.5 * ((model.coef_**2).sum(1) + model.intercept_**2) + c * loss


def main():
    tensors = {}
    for name, x, y, cs in problems():
        train, test = (x[:-TESTS], y[:-TESTS]), (x[-TESTS:], y[-TESTS:])
        x64, best, accuracies = train[0].astype(np.float64), [], []
        for c in cs:
            both = []
            for dual in (False, True):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = LinearSVC(C=c, dual=dual, tol=1e-6, max_iter=100_000, random_state=0).fit(x64, train[1])
                both.append((objectives(model, x64, train[1], c), (model.predict(test[0]) == test[1]).mean()))
            best.append(np.minimum(both[0][0], both[1][0]))
            accuracies.append(both[int(both[1][0].sum() < both[0][0].sum())][1])
        tensors |= {
            f"{name}.x": train[0],
            f"{name}.y": train[1].astype(np.int64),
            f"{name}.test_x": test[0],
            f"{name}.test_y": test[1].astype(np.int64),
            f"{name}.c": np.array(cs),
            f"{name}.objective": np.array(best),
            f"{name}.accuracy": np.array(accuracies),
        }
        print(name, train[0].shape, np.array(accuracies))
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, HERE / "case.safetensors")


if __name__ == "__main__":
    main()
