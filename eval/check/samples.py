"""Compares the samples of two models with the same z, such as bf16 weights with f32 weights.

Run: python3 samples.py MODEL OTHER [--n 64] [--seed 1] [--ours target/release]
     (Python 3.11, numpy, Pillow)

Prints the mean and the largest difference of pixels in levels of 255.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def drawn(binary, model, args):
    """The samples of a model, (n, h, w) or (n, h, w, c), as integers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "sample", "--quiet", "--model", model, "--n", str(args.n), "--seed", str(args.seed)]
        subprocess.run([*command, "--each", folder], check=True, stdout=subprocess.DEVNULL)
        return np.stack([np.asarray(Image.open(path), int) for path in sorted(Path(folder).rglob("*.png"))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("other")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ours", type=Path, default=ROOT / "target" / "release")
    args = parser.parse_args()
    binary = args.ours.resolve() / "dcgan-train"
    difference = np.abs(drawn(binary, args.model, args) - drawn(binary, args.other, args))
    print(f"{args.n} samples: mean difference {difference.mean():.2f} levels, largest {difference.max()}")


if __name__ == "__main__":
    main()
