"""Gives the inputs of make.py to the programs and compares what comes out with what is right.

    python make.py OUT
    python check.py OUT --bin target/release        # needs numpy, torch, safetensors and Pillow

Prints a row of Markdown for each case: command, output, verdict. Exit code 1 if a verdict is not `ok`.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from PIL import Image
from safetensors.torch import load_file

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("cases", type=Path)
parser.add_argument("--bin", type=Path, default=Path("target/release"))
parser.add_argument("--only", help="run cases whose name contains this text")
args = parser.parse_args()
CASES, BIN = args.cases.resolve(), args.bin.resolve()
WORK = Path(tempfile.mkdtemp(prefix="dcgan-cases-"))
RED, GREEN, BLUE, YELLOW = (200, 40, 40), (40, 200, 40), (40, 40, 200), (230, 230, 60)
ROWS = []


def plain_paths(text):
    return text.replace(str(CASES), "CASES").replace(f"{WORK}/", "")


class Ran:
    """A finished command."""

    def __init__(self, program, *arguments):
        command = [program, *map(str, arguments)]
        done = subprocess.run([BIN / program, *command[1:]], cwd=WORK, capture_output=True, text=True, timeout=900)
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.command = plain_paths(" ".join(command))

    def says(self, *parts):
        return all(part in self.out + self.err for part in parts)

    def tail(self):
        text = self.err if self.code else self.out or self.err
        lines = [line for line in text.splitlines() if line and not line.startswith(("(see", "For more"))]
        return plain_paths(re.sub(r"\s+", " ", lines[-1] if lines else ""))[:160]


def row(case, ran, verdict, shown=None):
    """`verdict` is whether the case is right."""
    ROWS.append(verdict)
    text = (shown or ran.tail()).replace("|", "\\|")
    print(f"| {case} | `{ran.command}` | rc {ran.code}: {text} | {'ok' if verdict else '**wrong**'} |", flush=True)


def quarters(path, crop=None):
    """The colors at the centers of the four quarters of an image."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    return [image.getpixel((x * width // 4, y * height // 4)) for y in (1, 3) for x in (1, 3)]


def near(found, expected, within):
    return all(abs(a - b) <= within for f, e in zip(found, expected) for a, b in zip(f, e))


def montage(path, *options):
    out = WORK / "montage.png"
    ran = Ran("dcgan-data", "inspect", path, "--size", "64", "--montage", out, *options)
    return ran, out


def images():
    case = CASES / "motion-photo"
    ran, out = montage(case / "a.jpg")
    row("motion-photo", ran, ran.code == 0 and near(quarters(out), [RED, GREEN, BLUE, YELLOW], 2), str(quarters(out)))
    ran, out = montage(CASES / "grey-from-color" / "a.png", "--channels", "1")
    found = [color[0] for color in quarters(out)]
    row("grey-from-color", ran, all(abs(a - b) <= 1 for a, b in zip(found, (88, 134, 58, 211))), str(found))
    ran, out = montage(CASES / "alpha" / "a.png", "--background", "white")
    image = Image.open(out).convert("RGB")
    found = [image.getpixel((32, 32)), image.getpixel((2, 2))]
    right = found == [(0, 0, 0), (255, 255, 255)]
    row("alpha, on white", ran, right and ran.says("composited on white"), str(found))
    ran, out = montage(CASES / "alpha" / "a.png")
    row("alpha", ran, ran.says("composited on black"), "transparent pixels are composited on black")
    for kind in ("bmp", "gif", "tiff", "ppm"):
        ran, out = montage(CASES / "bmp-gif-tiff-ppm" / f"{kind}.{kind}")
        within = 8 if kind == "gif" else 0
        right = ran.code == 0 and near(quarters(out), [RED, GREEN, BLUE, YELLOW], within)
        row(f"bmp-gif-tiff-ppm: {kind}", ran, right, str(quarters(out)))
    ran = Ran("dcgan-data", "inspect", CASES / "huge-png")
    row("huge-png", ran, ran.says("60000", "limit", "32768"))
    ran = Ran("dcgan-data", "inspect", CASES / "huge-png", "--skip-bad", "--json")
    row(
        "huge-png, skipped",
        ran,
        ran.code == 0 and json.loads(ran.out)["images"] == 1,
        f"{json.loads(ran.out)['images']} image",
    )


def layouts():
    def counts(case, path, expected, *options):
        ran = Ran("dcgan-data", "inspect", path, "--json", *options)
        line = json.loads(ran.out) if ran.code == 0 else {}
        found = [line.get("images"), [entry.get("name") for entry in line.get("classes", [])]]
        row(case, ran, ran.code == 0 and expected(*found), str(found) if line else None)

    counts("cifar-python", CASES / "cifar-python" / "cifar-10-batches-py", lambda n, c: n == 50 and len(c) == 10)
    counts("mnist-torchvision-root", CASES / "mnist-torchvision-root" / "data", lambda n, c: n == 20)
    counts("emnist-names", CASES / "emnist-names" / "data", lambda n, c: n == 20)
    ran = Ran("dcgan-data", "inspect", CASES / "mnist-without-test" / "data", "--test")
    row("mnist-without-test", ran, ran.code == 2 and ran.says("t10k"))
    ran = Ran("dcgan-data", "inspect", CASES / "lsun-lmdb" / "bedroom_train_lmdb")
    row("lsun-lmdb", ran, ran.code == 2 and ran.says("LMDB"))
    for name, kind in (("rar", "RAR"), ("seven", "7z")):
        ran = Ran("dcgan-data", "inspect", CASES / "rar-named-zip" / f"{name}.zip")
        row(f"rar-named-zip: {name}", ran, ran.code == 2 and ran.says(kind))
    counts("dataset-json-vectors", CASES / "dataset-json-vectors" / "a.zip", lambda n, c: n == 4 and not c)
    split = CASES / "split-folders" / "data"
    counts("split-folders, train", split, lambda n, c: n == 6 and c == ["cat", "dog"])
    counts("split-folders, --test", split, lambda n, c: n == 6 and c == ["cat", "dog"], "--test")
    ran = Ran("dcgan-eval", "features", "--data", split, "--split", "train", "--out", "f.safetensors", "--json")
    found = json.loads(ran.out) if ran.code == 0 else {}
    row("split-folders, features", ran, found.get("images") == 6, f"{found.get('images')} images")


def features():
    case = CASES / "probe-missing-class"
    for name in ("train", "test"):
        ran = Ran("dcgan-eval", "features", "--data", case / name, "--out", f"{name}.safetensors")
        if ran.code != 0:
            return row("probe-missing-class", ran, False)
    ran = Ran("dcgan-eval", "probe", "--train", "train.safetensors", "--test", "test.safetensors", "--json")
    accuracy = json.loads(ran.out).get("accuracy_percent") if ran.code == 0 else None
    row("probe-missing-class", ran, accuracy == 100.0, f"accuracy {accuracy} %")


class Net(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.main = nn.Sequential(*layers)

    def forward(self, x):
        return self.main(x)


def plain(network, bias):
    """The networks of make.py, without spectral norm."""

    def up(i, o):
        return nn.ConvTranspose2d(i, o, 4, 2, 1, bias=bias)

    def down(i, o):
        return nn.Conv2d(i, o, 4, 2, 1, bias=False)

    def norm(c):
        return [nn.BatchNorm2d(c), nn.ReLU(True)]

    if network == "G":
        project = nn.ConvTranspose2d(100, 64, 4, 1, 0, bias=bias)
        return Net([project, *norm(64), up(64, 32), *norm(32), up(32, 16), *norm(16), up(16, 3), nn.Tanh()])
    slope = nn.LeakyReLU(0.2)
    hidden = [down(16, 32), nn.BatchNorm2d(32), slope, down(32, 64), nn.BatchNorm2d(64), slope]
    return Net([down(3, 16), slope, *hidden, nn.Conv2d(64, 1, 4, 1, 0, bias=False)])


def difference(model, file, network, bias=False):
    """Largest difference between the outputs of an imported network, exported again, and those of PyTorch."""
    exported = WORK / f"export-{len(ROWS)}-{network}"
    done = Ran("dcgan-train", "export", model, "--to", "pytorch", "--out", exported)
    if done.code != 0:
        return np.inf
    net = plain(network, bias)
    net.load_state_dict(load_file(exported / f"net{network}.safetensors"))
    reference = np.load(f"{file}.npz")
    with torch.no_grad():
        return float(np.abs(net.eval()(torch.from_numpy(reference["x"])).numpy() - reference["y"]).max())


def checkpoints():
    def imported(case, sources, checks, *options):
        model = WORK / f"model-{len(ROWS)}"
        ran = Ran("dcgan-train", "import", *sources, "--out", model, *options)
        errors = [difference(model, *check) for check in checks] if ran.code == 0 else []
        right = ran.code == 0 and all(error <= 1e-5 for error in errors)
        shown = ", ".join(f"differs by {error:.1e}" for error in errors) or None
        row(case, ran, right, shown)

    two = CASES / "two-files"
    g, d = two / "netG_epoch_0.pth", two / "netD_epoch_0.pth"
    imported("two-files", [g, d], [(g, "G"), (d, "D")])
    folder = WORK / "two"
    folder.mkdir()
    for file in (g, d):
        shutil.copy(file, folder)
    imported("two-files, folder", [folder], [(g, "G"), (d, "D")])
    imported("two-files, --config", [d, g], [(g, "G"), (d, "D")], "--config", CASES / "tiny.toml")
    imported("checkpoint-namespace", [CASES / "checkpoint-namespace" / "a.pth"], [])
    ran = Ran("dcgan-train", "import", CASES / "checkpoint-torchscript" / "a.pt", "--out", "torchscript")
    row("checkpoint-torchscript", ran, ran.code == 0 or ran.says("TorchScript"))
    for form in ("old", "new"):
        file = CASES / "checkpoint-spectral-norm" / f"{form}.pth"
        imported(f"checkpoint-spectral-norm: {form}", [file], [(file, "D")])
    file = CASES / "checkpoint-bias" / "a.pth"
    imported("checkpoint-bias", [file], [(file, "G", True)])
    ran = Ran("dcgan-train", "import", CASES / "checkpoint-nan" / "a.pth", "--out", "nan")
    row("checkpoint-nan", ran, ran.code == 2 and ran.says("main.0.weight") and not (WORK / "nan").exists())
    ran = Ran("dcgan-train", "sample", "--model", CASES / "checkpoint-nan" / "a.pth", "--out", "nan.png")
    row("checkpoint-nan, sample", ran, ran.code == 2 and not (WORK / "nan.png").exists())


def commands():
    model = WORK / "model-g"
    Ran("dcgan-train", "import", CASES / "two-files" / "netG_epoch_0.pth", "--out", model)
    ran = Ran("dcgan-train", "sample", "--model", model, "--n", "1", "--out", "one.png")
    size = Image.open(WORK / "one.png").size
    row("single-images: --n 1", ran, size == (32, 32), f"{size[0]}x{size[1]}")
    ran = Ran("dcgan-train", "sample", "--model", model, "--n", "7", "--each", "each")
    sizes = {Image.open(path).size for path in (WORK / "each").glob("*.png")}
    count = len(list((WORK / "each").glob("*.png")))
    row("single-images: --each", ran, count == 7 and sizes == {(32, 32)}, f"{count} files of {sizes}")
    ran = Ran("dcgan-train", "sample", "--model", model, "--n", "4", "--out", "a.jpg")
    kind = Image.open(WORK / "a.jpg").format if (WORK / "a.jpg").exists() else None
    row("png-named-jpg", ran, kind == "JPEG" or ran.code == 2, f"{kind}")
    ran = Ran("dcgan-train", "run", "--seed", "-1")
    row("negative-seed", ran, ran.code == 2 and ran.says("--seed", "at least 0"))
    late = CASES / "late-bad-image" / "late.zip"
    options = ["--data", late, "--config", CASES / "tiny.toml", "--epochs", "1", "--checkpoint-every", "50"]
    ran = Ran("dcgan-train", "run", *options, "--out", "late")
    row("late-bad-image", ran, ran.code == 2 and ran.says("02502.png", "--skip-bad") and not (WORK / "late").exists())
    ran = Ran("dcgan-train", "run", *options, "--skip-bad", "--out", "late")
    row("late-bad-image, --skip-bad", ran, ran.code == 0 and ran.says("02502.png"))


try:
    print("| case | command | output | verdict |\n|---|---|---|---|")
    for group in (images, layouts, features, checkpoints, commands):
        if args.only is None or args.only in group.__name__:
            group()
finally:
    shutil.rmtree(WORK)
print(f"\n{sum(ROWS)} of {len(ROWS)} right")
sys.exit(0 if all(ROWS) else 1)
