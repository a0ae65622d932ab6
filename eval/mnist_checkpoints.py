"""Nearest-neighbour errors of checkpoints of mnist-cond on digits that are not the test digits (supplement).

Run: cargo build --release
     python3 mnist_checkpoints.py CHECKPOINT... --data mnist [--queries 20000] [--seeds 0,1] [--count 50000]
         [--z-scales 0.9,1.1] [--without-ema] [--ours target/release]
     python3 mnist_checkpoints.py --real --data mnist [--ours target/release]
     (Python 3.11, numpy, safetensors)

Queries are the first training digits of MNIST, so that the choice of a checkpoint does not use the test digits.
References are samples with minibatch statistics (`dcgan-eval mnist-nn`). --z-scales and --without-ema add rows for each
checkpoint: z multiplied by a factor, and the weights of the last step instead of their EMA. Prints a table in Markdown:
error and mean distance, means over the seeds.

--real: the test digits with the training digits 10,001 to 60,000 as references, as many as the samples of the paper.
"""

import argparse
import gzip
import json
import shutil
import statistics
import struct
import subprocess
import tempfile
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
FILES = {"images": "idx3", "labels": "idx1"}


def name(split, part):
    return f"{split}-{part}-{FILES[part]}-ubyte.gz"


def cut(source, target, first, last):
    """Copies the records from `first` to `last` (exclusive) of an idx file."""
    data = gzip.open(source).read()
    sizes = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    start = 4 + 4 * len(sizes)
    record = (len(data) - start) // sizes[0]
    header = data[:4] + struct.pack(f">{len(sizes)}I", last - first, *sizes[1:])
    target.write_bytes(gzip.compress(header + data[start + record * first : start + record * last], 1))


def dataset(data, folder, train, test):
    """MNIST with other splits: (split, first, last) of the training and of the test images; all records if None."""
    folder.mkdir()
    for to, (split, first, last) in (("train", train), ("t10k", test)):
        for part in FILES:
            source, target = (data / name(split, part)).resolve(), folder / name(to, part)
            if first is None:
                target.symlink_to(source)
            else:
                cut(source, target, first, last)
    return folder


def variant(checkpoint, folder, z_scale, ema):
    """A model folder with the generator of `checkpoint`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(checkpoint / "config.json", folder)
    file = checkpoint / "generator.safetensors"
    tensors = load_file(file)
    if not ema:
        state = load_file(checkpoint / "state.safetensors")
        tensors = {key: state[f"generator.raw.{key}"] for key in tensors}
    size = json.loads((folder / "config.json").read_text())["latent"]["size"]
    first = "dense.0.conv.weight"
    tensors[first] = tensors[first].copy()
    tensors[first][:size] *= z_scale
    with safe_open(file, "np") as opened:
        save_file(tensors, folder / file.name, metadata=opened.metadata())
    return folder


def search(binary, data, *options):
    command = [binary, "mnist-nn", "--quiet", "--json", "--data", data, *options]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found["error_percent"], found["nnd_score"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--queries", type=int, default=20000)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--count", type=int, default=50000)
    parser.add_argument("--z-scales", default="")
    parser.add_argument("--without-ema", action="store_true")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--ours", type=Path, default=ROOT / "target" / "release")
    args = parser.parse_args()
    binary = args.ours.resolve() / "dcgan-eval"
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        print("| references | error % | mean distance |\n|---|---|---|")
        if args.real:
            data = dataset(args.data, scratch / "real", ("train", 10000, 60000), ("t10k", None, None))
            error, distance = search(binary, data, "--samples", data)
            print(f"| training digits 10,001 to 60,000 | {error:.2f} | {distance:.3f} |")
        if not args.checkpoints:
            return
        data = dataset(args.data, scratch / "queries", ("train", None, None), ("train", 0, args.queries))
        variants = [("", 1.0, True)] + [(f", z times {x}", float(x), True) for x in args.z_scales.split(",") if x]
        variants += [(", without EMA", 1.0, False)] if args.without_ema else []
        for checkpoint in args.checkpoints:
            for label, z_scale, ema in variants:
                model = variant(checkpoint, scratch / "model", z_scale, ema)
                options = ["--model", model, "--statistics", "minibatch", "--count", str(args.count)]
                runs = [search(binary, data, *options, "--seed", seed) for seed in args.seeds.split(",")]
                error, distance = (statistics.mean(values) for values in zip(*runs))
                print(f"| {checkpoint}{label} | {error:.2f} | {distance:.3f} |", flush=True)


if __name__ == "__main__":
    main()
