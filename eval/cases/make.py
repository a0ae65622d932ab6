"""Makes small inputs as users of image generators have them: the kinds of fault seen in public bug reports, synthetic
and seeded. `check.py` has what each must give. Needs numpy, torch and Pillow.

    python make.py OUT
"""

import argparse
import io
import json
import os
import pickle
import random
import struct
import sys
import zipfile

import numpy as np
import torch
import torch.nn as nn
from PIL import Image

OUT = sys.argv[1]
random.seed(1)
rng = np.random.RandomState(0)
torch.manual_seed(0)


def case(name, text):
    os.makedirs(f"{OUT}/{name}", exist_ok=True)
    open(f"{OUT}/{name}/README", "w").write(text + "\n")
    return f"{OUT}/{name}"


def put(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def quad(h=64, w=64):
    a = np.zeros((h, w, 3), np.uint8)
    a[: h // 2, : w // 2], a[: h // 2, w // 2 :], a[h // 2 :, : w // 2], a[h // 2 :, w // 2 :] = (
        (200, 40, 40),
        (40, 200, 40),
        (40, 40, 200),
        (230, 230, 60),
    )
    return Image.fromarray(a)


def enc(im, fmt="PNG", **k):
    b = io.BytesIO()
    im.save(b, fmt, **k)
    return b.getvalue()


def noise(s=32):
    return Image.fromarray(np.kron(rng.randint(0, 256, (2, 2, 3)), np.ones((s // 2, s // 2, 1))).astype(np.uint8))


def zipped(path, items, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as z:
        for n, b in items:
            z.writestr(n, b)


def idx(a):
    return struct.pack(">I", 0x800 | a.ndim) + b"".join(struct.pack(">I", s) for s in a.shape) + a.tobytes()


# ---- images
d = case("late-bad-image", "A zip of 4,000 PNG, one cut short, that the run meets only in the middle of an epoch")
items = [(f"{i:05d}.png", enc(noise())) for i in range(4000)]
items[2502] = (items[2502][0], items[2502][1][:60])
zipped(f"{d}/late.zip", items)
d = case(
    "motion-photo",
    "Complete JPEG followed by bytes of a video in which ff da comes after the last ff d9 (phones append an MP4)",
)
put(
    f"{d}/a.jpg",
    enc(quad(), "JPEG", quality=95)
    + b"\0\0\0\x18ftypmp42"
    + bytes(random.choice(range(254)) for _ in range(2000))
    + b"\xff\xda"
    + b"\0" * 100,
)
d = case("huge-png", "60000x60000 bilevel PNG beside a good one")
Image.new("1", (60000, 60000), 1).save(f"{d}/a.png")
quad().save(f"{d}/b.png")
d = case("grey-from-color", "Red, green, blue, yellow quarters, read with one channel")
quad().save(f"{d}/a.png")
d = case("alpha", "Black drawing on transparent white: composited on black nothing is left")
a = np.full((64, 64, 4), 255, np.uint8)
a[..., 3] = 0
a[16:48, 16:48] = (0, 0, 0, 255)
Image.fromarray(a, "RGBA").save(f"{d}/a.png")
d = case("bmp-gif-tiff-ppm", "The formats of torchvision.ImageFolder that are not read")
for e in ("bmp", "gif", "tiff", "ppm"):
    quad().save(f"{d}/{e}.{e}")
# ---- layouts
d = case("cifar-python", "CIFAR-10 in the python version (pickles), random pixels")
for n in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
    put(
        f"{d}/cifar-10-batches-py/{n}",
        pickle.dumps({b"data": rng.randint(0, 256, (10, 3072)).astype(np.uint8), b"labels": list(range(10))}),
    )
im, lb = rng.randint(0, 256, (20, 28, 28)).astype(np.uint8), (np.arange(20) % 10).astype(np.uint8)
for name, text, p in (
    ("mnist-torchvision-root", "MNIST as torchvision lays it out; --data is the root", "MNIST/raw/"),
    ("emnist-names", "EMNIST's file names", "emnist-letters-"),
    ("mnist-without-test", "MNIST without t10k files, asked for --test", ""),
):
    d = case(name, text)
    put(f"{d}/data/{p}train-images-idx3-ubyte", idx(im))
    put(f"{d}/data/{p}train-labels-idx1-ubyte", idx(lb))
d = case("lsun-lmdb", "LSUN's LMDB (header only)")
put(f"{d}/bedroom_train_lmdb/data.mdb", b"\0" * 16 + b"\xde\xc0\xef\xbe" + b"\0" * 4000)
d = case("rar-named-zip", "RAR and 7z (first bytes only) under the name .zip")
put(f"{d}/rar.zip", b"Rar!\x1a\7\1\0" + b"\0" * 200)
put(f"{d}/seven.zip", b"7z\xbc\xaf\x27\x1c" + b"\0" * 200)
d = case("dataset-json-vectors", "StyleGAN3/EG3D dataset.json: the label is a list of numbers")
zipped(
    f"{d}/a.zip",
    [(f"{i}.png", enc(noise())) for i in range(4)]
    + [("dataset.json", json.dumps({"labels": [[f"{i}.png", [0.0, 1.0]] for i in range(4)]}))],
)
d = case("split-folders", "train/, val/, test/, each with cat/ and dog/")
for sp in ("train", "val", "test"):
    for c in ("cat", "dog"):
        for i in range(3):
            put(f"{d}/data/{sp}/{c}/{i}.png", enc(noise()))


# ---- features
def stripe(c, s=28):
    a = rng.randint(0, 60, (s, s))
    a[c * 5 : c * 5 + 5] = 255
    return enc(Image.fromarray(a.astype(np.uint8)))


d = case("probe-missing-class", "Training folder with classes a b c, test folder with a c only")
for c, n in enumerate("abc"):
    for i in range(10):
        put(f"{d}/train/{n}/{i}.png", stripe(c))
    for i in range(5):
        if n != "b":
            put(f"{d}/test/{n}/{i}.png", stripe(c))


# ---- checkpoints, all of the networks in tiny.toml (pytorch32 with 16 channels)
def blocks(channels):
    rows = "".join(f"  {{ channels = {c}, kernel = 4, stride = 2, padding = 1 }},\n" for c in channels)
    return f"[\n{rows}]"


TOML = f"""[model]
version = 2
name = "tiny"
height = 32
width = 32
channels = 3
[model.latent]
size = 100
distribution = "normal"
[model.generator]
project_channels = 64
project_norm = "per-channel"
output = "tanh"
norm = {{ eps = 1e-5, affine = true }}
blocks = {blocks([32, 16, 3])}
[model.discriminator]
negative_slope = 0.2
norm = {{ eps = 1e-5, affine = true }}
blocks = {blocks([16, 32, 64])}
[training]
batch_size = 16
epochs = 1
order = "both"
learning_rate = 2e-4
beta1 = 0.5
beta2 = 0.999
adam_eps = 1e-8
weight_decay = 0.0
label_smoothing = 0.0
ema = 0.0
weight_std = 0.02
norm_weight_std = 0.02
learning_rate_decay = "none"
"""
put(f"{OUT}/tiny.toml", TOML.encode())


class Net(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.main = nn.Sequential(*layers)

    def forward(self, x):
        return self.main(x)


def G(bias=False):
    def up(i, o):
        return nn.ConvTranspose2d(i, o, 4, 2, 1, bias=bias)

    def norm(c):
        return [nn.BatchNorm2d(c), nn.ReLU(True)]

    project = nn.ConvTranspose2d(100, 64, 4, 1, 0, bias=bias)
    return Net([project, *norm(64), up(64, 32), *norm(32), up(32, 16), *norm(16), up(16, 3), nn.Tanh()])


def D(wrap=lambda module: module):
    def down(i, o):
        return wrap(nn.Conv2d(i, o, 4, 2, 1, bias=False))

    def leaky():
        return nn.LeakyReLU(0.2, True)

    hidden = [down(16, 32), nn.BatchNorm2d(32), leaky(), down(32, 64), nn.BatchNorm2d(64), leaky()]
    # No sigmoid: the reference is the logit.
    return Net([down(3, 16), leaky(), *hidden, wrap(nn.Conv2d(64, 1, 4, 1, 0, bias=False))])


def trained(net, shape):
    """Running statistics and spectral vectors of a few batches, then evaluation."""
    with torch.no_grad():
        for _ in range(3):
            net.train()(torch.randn(16, *shape))
    return net.eval()


def save(net, shape, path):
    """The state dict, and what PyTorch computes from it in evaluation: PATH.npz with input and output."""
    net = trained(net, shape)
    torch.save(net.state_dict(), path)
    x = torch.randn(4, *shape)
    with torch.no_grad():
        np.savez(f"{path}.npz", x=x.numpy(), y=net(x).numpy())


z, image = (100, 1, 1), (3, 32, 32)
d = case("two-files", "netG and netD in two files, as pytorch/examples writes them")
save(G(), z, f"{d}/netG_epoch_0.pth")
save(D(), image, f"{d}/netD_epoch_0.pth")
g = trained(G(), z)
d = case("checkpoint-namespace", "state dict beside args, an argparse.Namespace")
torch.save({"netG": g.state_dict(), "args": argparse.Namespace(ngf=16)}, f"{d}/a.pth")
d = case("checkpoint-torchscript", "torch.jit.script(G).save()")
torch.jit.script(g).save(f"{d}/a.pt")
d = case("checkpoint-spectral-norm", "D with nn.utils.spectral_norm (old) and parametrizations.spectral_norm (new)")
save(D(nn.utils.spectral_norm), image, f"{d}/old.pth")
save(D(nn.utils.parametrizations.spectral_norm), image, f"{d}/new.pth")
d = case("checkpoint-bias", "G whose convolutions have biases (nn.ConvTranspose2d's default)")
save(G(True), z, f"{d}/a.pth")
weights = {name: value.clone() for name, value in g.state_dict().items()}
weights["main.0.weight"][0, 0, 0, 0] = float("nan")
d = case("checkpoint-nan", "One weight of G is NaN")
torch.save(weights, f"{d}/a.pth")
