"""A narrow slice of the authors' released SVHN weights in joblib format, and the outputs of the sliced networks.

Usage, in this folder: python3 make.py FOLDER, where FOLDER contains the released 200_gen_params.jl,
200_discrim_params.jl and their .npy files (Newmu/dcgan_code, svhn, MIT license in LICENSE). Needs numpy, safetensors
and joblib.

resaved/ contains D's arrays in the current formats: joblib.jl by joblib, joblib_compatible.jl by joblib with protocol
2, pickle.jl by pickle with protocol 2.

The index files *.jl are the released ones, byte for byte. Each array is cut to its first channels, so that both
networks remain valid: z 10, G 8-6-4-3 channels on 4, 8, 16, 32 rows; D 3-4-6-8 channels on 32, 16, 8, 4 rows.

expected.safetensors, computed in float64 with plain loops in Theano's convention (convolution with flipped kernels),
batch norm with minibatch statistics, biased variance and eps 1e-8, stored as f32:

  g.<layer>.<tensor>  G's tensors conv.weight, norm.weight, norm.bias in PyTorch's layout (cross-correlation): kernels
                      rotated, dense layers as feature maps
  d.<layer>.<tensor>  D's tensors
  z                   (3, 10) from N(0, 1)
  g.project           (3, 8, 4, 4), then g.blocks.0, g.blocks.1 after batch norm and ReLU
  fake                (3, 3, 32, 32), G(z) after tanh
  x                   (3, 3, 32, 32) from U(-1, 1)
  d.blocks.0 ...      (3, 4, 16, 16), ... after batch norm (not the first) and LeakyReLU 0.2
  logit               (3), D(x) before the sigmoid
"""

import pathlib
import pickle
import shutil
import sys

import joblib
import numpy as np
from safetensors.numpy import save_file

EPS, NEGATIVE_SLOPE = 1e-8, 0.2
Z, G_CHANNELS, D_CHANNELS = 10, (8, 6, 4, 3), (3, 4, 6, 8)
here, released = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[1])


def sliced(index, slices):
    """Copies the index file, writes the slices of its arrays, and returns them."""
    shutil.copyfile(released / index, here / index)
    arrays = []
    for i, take in enumerate(slices, 1):
        name = f"{index}_{i:02}.npy"
        arrays.append(np.ascontiguousarray(take(np.load(released / name))))
        np.save(here / name, arrays[-1])
    return [array.astype(np.float64) for array in arrays]


def first(*sizes):
    return lambda array: array[tuple(slice(size) for size in sizes)]


c0, c1, c2, c3 = G_CHANNELS
n_project = c0 * 16
# The activations of the projection are in channel-major order, so the first ones are those of the first channels.
G = sliced(
    "200_gen_params.jl",
    [
        first(Z, n_project),
        first(n_project),
        first(n_project),
        first(c0, c1),
        first(c1),
        first(c1),
        first(c1, c2),
        first(c2),
        first(c2),
        first(c2, c3),
    ],
)
e0, e1, e2, e3 = D_CHANNELS
D = sliced(
    "200_discrim_params.jl",
    [
        first(e1, e0),
        first(e2, e1),
        first(e2),
        first(e2),
        first(e3, e2),
        first(e3),
        first(e3),
        first(e3 * 16),
    ],
)

(here / "resaved").mkdir(exist_ok=True)
f32 = [array.astype(np.float32) for array in D]
# One array in column-major order, as after a transpose in numpy.
f32[1] = np.asfortranarray(f32[1])
joblib.dump(f32, here / "resaved/joblib.jl")
joblib.dump(f32, here / "resaved/joblib_compatible.jl", protocol=2)
(here / "resaved/pickle.jl").write_bytes(pickle.dumps(f32, protocol=2))


def conv(x, w):
    """Theano's convolution with a flipped kernel, stride 2, padding 2; w is (out, in, 5, 5)."""
    n, _, height, width = x.shape
    y = np.zeros((n, w.shape[0], height // 2, width // 2))
    for p in range(height // 2):
        for q in range(width // 2):
            for a in range(5):
                for b in range(5):
                    i, j = 2 * p - 2 + (4 - a), 2 * q - 2 + (4 - b)
                    if 0 <= i < height and 0 <= j < width:
                        y[:, :, p, q] += x[:, :, i, j] @ w[:, :, a, b].T
    return y


def deconv(x, w):
    """The transpose of `conv` with respect to its images; w is (in, out, 5, 5)."""
    n, _, height, width = x.shape
    y = np.zeros((n, w.shape[1], height * 2, width * 2))
    for p in range(height):
        for q in range(width):
            for a in range(5):
                for b in range(5):
                    i, j = 2 * p - 2 + (4 - a), 2 * q - 2 + (4 - b)
                    if 0 <= i < height * 2 and 0 <= j < width * 2:
                        y[:, :, i, j] += x[:, :, p, q] @ w[:, :, a, b]
    return y


def batch_norm(x, weight, bias):
    axes = (0, 2, 3) if x.ndim == 4 else (0,)
    shape = (1, -1, 1, 1) if x.ndim == 4 else (1, -1)
    mean = x.mean(axes).reshape(shape)
    variance = np.square(x - mean).mean(axes).reshape(shape)
    return (x - mean) / np.sqrt(variance + EPS) * weight.reshape(shape) + bias.reshape(shape)


def leaky_relu(x):
    return np.where(x > 0, x, NEGATIVE_SLOPE * x)


random = np.random.default_rng(20160102)
z, x = random.standard_normal((3, Z)), random.uniform(-1, 1, (3, 3, 32, 32))
z, x = (array.astype(np.float32).astype(np.float64) for array in (z, x))
gw, g, b, gw2, g2, b2, gw3, g3, b3, gwx = G
h0 = np.maximum(batch_norm(z @ gw, g, b), 0).reshape(3, c0, 4, 4)
h1 = np.maximum(batch_norm(deconv(h0, gw2), g2, b2), 0)
h2 = np.maximum(batch_norm(deconv(h1, gw3), g3, b3), 0)
fake = np.tanh(deconv(h2, gwx))

dw, dw2, dg2, db2, dw3, dg3, db3, dwy = D
f0 = leaky_relu(conv(x, dw))
f1 = leaky_relu(batch_norm(conv(f0, dw2), dg2, db2))
f2 = leaky_relu(batch_norm(conv(f1, dw3), dg3, db3))
logit = (f2.reshape(3, -1) @ dwy).reshape(3)


def rotated(w):
    return w[:, :, ::-1, ::-1]


expected = {
    "g.project.conv.weight": gw.reshape(Z, c0, 4, 4),
    "g.project.norm.weight": g.reshape(c0, 4, 4),
    "g.project.norm.bias": b.reshape(c0, 4, 4),
    "g.blocks.0.conv.weight": rotated(gw2),
    "g.blocks.0.norm.weight": g2,
    "g.blocks.0.norm.bias": b2,
    "g.blocks.1.conv.weight": rotated(gw3),
    "g.blocks.1.norm.weight": g3,
    "g.blocks.1.norm.bias": b3,
    "g.blocks.2.conv.weight": rotated(gwx),
    "d.blocks.0.conv.weight": rotated(dw),
    "d.blocks.1.conv.weight": rotated(dw2),
    "d.blocks.1.norm.weight": dg2,
    "d.blocks.1.norm.bias": db2,
    "d.blocks.2.conv.weight": rotated(dw3),
    "d.blocks.2.norm.weight": dg3,
    "d.blocks.2.norm.bias": db3,
    "d.head.conv.weight": dwy.reshape(1, e3, 4, 4),
    "z": z,
    "g.project": h0,
    "g.blocks.0": h1,
    "g.blocks.1": h2,
    "fake": fake,
    "x": x,
    "d.blocks.0": f0,
    "d.blocks.1": f1,
    "d.blocks.2": f2,
    "logit": logit,
}
save_file(
    {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in expected.items()},
    here / "expected.safetensors",
)
(here / "expected.safetensors").chmod(0o644)
