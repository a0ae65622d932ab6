"""Section 4.1, end to end: a category of LSUN as it is published, near-duplicates, one and five epochs, samples.

Run: cargo build --release
     python3 lsun.py OUT --images images.zip [--ours target/release] [--preset paper64] [--dtype bf16]
     (Python 3.11 with lmdb)

Writes the images of a zip into a database as LSUN's (LMDB of data version 1, keys of 40 characters, encoded images as
values), then runs the commands of the README. OUT gets the database, the list of near-duplicates with its pairs, and
the run. A command that is repeated resumes where it stopped. Prints the time of each command.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from stability import same_settings

ROOT = Path(__file__).resolve().parents[1]
IMAGES = (".jpg", ".jpeg", ".png", ".webp")


def database(images, folder):
    import lmdb

    if folder.exists():
        return
    # LMDB creates its file before the images are in it.
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with zipfile.ZipFile(images) as archive, lmdb.open(str(partial), map_size=1 << 40) as env:
        with env.begin(write=True) as transaction:
            for name in archive.namelist():
                if name.lower().endswith(IMAGES):
                    transaction.put(hashlib.sha1(name.encode()).hexdigest().encode(), archive.read(name))
    partial.rename(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release")
    parser.add_argument("--preset", default="paper64")
    parser.add_argument("--dtype", default="f32")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    same_settings(args.out, images=args.images.resolve(), size=args.images.stat().st_size, preset=args.preset)
    lsun = args.out / "lsun"
    database(args.images, lsun / "bedroom_train_lmdb")
    duplicates, pairs, run = args.out / "near-duplicates.txt", args.out / "pairs.png", args.out / "bedrooms"
    train, evaluate, data = (str(args.ours / name) for name in ("dcgan-train", "dcgan-eval", "dcgan-data"))
    commands = [[data, "inspect", lsun, "--headers"]]
    if not duplicates.exists():
        commands.append([evaluate, "dedup", lsun, "--out", duplicates, "--montage", pairs])
    one = ["--preset", args.preset, "--dtype", args.dtype, "--data", lsun, "--exclude", duplicates, "--epochs", "1"]
    first, last = args.out / "epoch-1.png", args.out / "epoch-5.png"
    newest = lambda: max((run / "checkpoints").iterdir())  # noqa: E731, the best one may be an earlier one
    if not first.exists():
        commands.append([train, "run", *one, "--sample-every", "20", "--resume-if-exists", "--out", run])
        commands.append([train, "sample", "--model", newest, "--n", "64", "--out", first])
    commands.append([train, "resume", run, "--epochs", "5"])
    commands.append([train, "sample", "--model", newest, "--n", "64", "--out", last])
    for command in commands:
        command = [word() if callable(word) else word for word in command]
        start = time.monotonic()
        print("$", *command, flush=True)
        status = subprocess.run([str(word) for word in command]).returncode
        if status != 0:
            sys.exit(f"exit status {status}")
        print(f"({time.monotonic() - start:.1f} s)", flush=True)


main()
