"""A dataset of millions of files: times and memory of opening it, and what a kill in each phase costs.

Run: cargo build --release -p dcgan-data -p dcgan-train
     python3 large_dataset.py FOLDER [--images 3000000] [--classes 1000] [--steps 900] [--binaries target/release]
     (Python 3.11; pillow and numpy to write the images)

Makes FOLDER/images once: class folders of files that are hard links to 3,000 small PNG images, so that the folders and
names are those of millions of images and the pixels fit on the disk. Indexes and decoded images are in FOLDER/caches.

Prints a table in Markdown: the first opening (which lists the folders), beside find, which reads the folders and sizes
as well, and later openings (from the index); a listing that is killed and resumes; a training that is killed with
SIGKILL at random moments and resumed, whose networks must have the bytes of an undisturbed one; a packing that is
killed and resumes, whose file must have the bytes of an undisturbed one.
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def make(folder, images, classes):
    import numpy as np
    from PIL import Image

    done = folder / f"images-{images}-{classes}"
    if done.exists():
        return folder / "images"
    rng = np.random.default_rng(0)
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    for i in range(3000):
        buffer = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((32, 32)).save(buffer, "PNG")
        (sources / f"{i}.png").write_bytes(buffer.getvalue())
    for name in range(classes):
        own = folder / "images" / f"c{name:04}"
        own.mkdir(parents=True, exist_ok=True)
        for i in range(images // classes):
            number = name * (images // classes) + i
            os.link(sources / f"{number % 3000}.png", own / f"{number:08}.png")
    done.touch()
    time.sleep(3)  # an index is not trusted for folders that have just changed
    return folder / "images"


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bench:
    def __init__(self, args):
        self.args, self.caches = args, args.folder / "caches"
        self.env = dict(os.environ, DCGAN_CACHE=str(self.caches))
        print("| what | result |\n|---|---|")

    def row(self, what, result):
        print(f"| {what} | {result} |", flush=True)

    def must(self, what, is_same):
        self.row(what, "the same bytes" if is_same else "OTHER BYTES")
        if not is_same:
            raise SystemExit(1)

    def command(self, program, *words):
        return list(map(str, [self.args.binaries / program, *words]))

    def call(self, *words):
        done = subprocess.run(self.command(*words), env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{words}: exit status {done.returncode}\n{done.stderr}")
        return done.stdout

    def killed(self, seconds, *words):
        """Starts a command and kills it after some time; whether it was still running."""
        process = subprocess.Popen(
            self.command(*words), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True

    def files(self, ending):
        return list(self.caches.glob(f"*.{ending}")) if self.caches.exists() else []


def opening(bench, data):
    started = time.monotonic()
    subprocess.run(["find", data, "-type", "f", "-printf", "%s\n"], stdout=subprocess.DEVNULL, check=True)
    bench.row("`find` with the size of every file", f"{time.monotonic() - started:.2f} s")
    command = ["dcgan-data", "bench", data, "--size", 32, "--seconds", 4, "--json", "--quiet"]
    for what in ("first opening", "second opening", "third opening"):
        line = json.loads(bench.call(*command))
        memory, speed = line["peak_memory_bytes"] / 1e6, line["images_per_second"]
        bench.row(
            f"{what} of {line['images']:,} images",
            f"{line['open_seconds']:.2f} s; {speed:,.0f} images/s at 32x32, {memory:.0f} MB of memory at most",
        )
    index = bench.files("index")[0].stat().st_size
    bench.row("index", f"{index / 1e6:.0f} MB, {index / line['images']:.0f} bytes an image with its name")


def listing(bench, data):
    shutil.rmtree(bench.caches, ignore_errors=True)
    command = ["dcgan-data", "bench", data, "--size", 32, "--images", 1, "--json", "--quiet"]
    command += ["--decoded-images", "discard"]
    kills = 0
    while bench.killed(4, *command) and not bench.files("index"):
        kills += 1
        recorded = sum(file.stat().st_size for file in bench.files("partial"))
        bench.row(f"listing killed after 4 s, kill {kills}", f"{recorded / 1e6:.0f} MB of records")
        if kills == 9:
            break
    bench.row("listing after the kills", f"index {'there' if bench.files('index') else 'missing'}")
    line = json.loads(bench.call(*command))
    bench.row("opening after it", f"{line['open_seconds']:.2f} s")


def training(bench, data):
    args, steps = bench.args, bench.args.steps
    runs = args.folder / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    options = [
        "--preset",
        "pytorch32",
        "--data",
        data,
        "--steps",
        steps,
        "--checkpoint-every",
        20,
        "--sample-every",
        1000,
    ]
    started = time.monotonic()
    bench.call("dcgan-train", "run", *options, "--out", runs / "whole", "--quiet")
    bench.row(f"{steps} steps of 64 images, undisturbed", f"{time.monotonic() - started:.0f} s with evaluation")
    shutil.rmtree(bench.caches)  # the kills come while decoded images are kept for the first time
    random.seed(0)
    kills = 0
    start = ["run", *options, "--out", runs / "killed", "--resume-if-exists", "--quiet"]
    while bench.killed(random.uniform(6, 20), "dcgan-train", *start):
        kills += 1
    networks = ("generator", "discriminator")
    folders = [runs / name / "checkpoints" / f"{steps:08}" for name in ("whole", "killed")]
    same = all(
        sha256(folders[0] / f"{net}.safetensors") == sha256(folders[1] / f"{net}.safetensors") for net in networks
    )
    bench.must(f"the same, killed {kills} times and resumed", same)
    lines = [json.loads(line) for line in (runs / "whole" / "stats.jsonl").read_text().splitlines()]
    waits = [line["data_wait_share"] for line in lines if line["event"] == "step"]
    bench.row("waiting for data", f"{100 * max(waits):.2f} % at most")


def packing(bench, data):
    folder = bench.args.folder
    for name in ("whole", "killed"):
        (folder / f"{name}.cache").unlink(missing_ok=True)
    command = ["dcgan-data", "pack", data, "--size", 16, "--quiet", "--out"]
    started = time.monotonic()
    bench.call(*command, folder / "whole.cache")
    seconds = time.monotonic() - started
    size = (folder / "whole.cache").stat().st_size
    bench.row("packing at 16x16", f"{seconds:.0f} s, {size / 1e9:.2f} GB")
    kills = 0
    while bench.killed(0.45 * seconds, *command, folder / "killed.cache"):
        kills += 1
        partial = (folder / "killed.cache.partial").stat().st_size
        bench.row(f"packing killed after {0.45 * seconds:.0f} s, kill {kills}", f"{partial / 1e9:.2f} GB there")
        if kills == 9:
            break
    same = sha256(folder / "whole.cache") == sha256(folder / "killed.cache")
    bench.must("the packed files", same)
    for name in ("whole", "killed"):
        (folder / f"{name}.cache").unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=3_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--phases", default="opening,listing,training,packing")
    parser.add_argument("--binaries", type=Path, default=ROOT / "target" / "release")
    args = parser.parse_args()
    args.binaries = args.binaries.resolve()
    data = make(args.folder, args.images, args.classes)
    bench = Bench(args)
    shutil.rmtree(bench.caches, ignore_errors=True)
    for phase in args.phases.split(","):
        {"opening": opening, "listing": listing, "training": training, "packing": packing}[phase](bench, data)


if __name__ == "__main__":
    main()
