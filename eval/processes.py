#!/usr/bin/env python3
"""Runs of several processes: equal bytes, kills, speed. Needs dcgan-train with the feature `mpi`, and mpirun.

    python3 eval/processes.py hashes --train target/release/dcgan-train --faces FACES.zip --mnist DIR [PRESET ...]
    python3 eval/processes.py kills --train target/release/dcgan-train [--seed S]
    python3 eval/processes.py speed --train target/release/dcgan-train --faces FACES.zip

`hashes` trains two steps of 16 images in 8 shards with 1, 2, 4 and 8 processes and compares the checkpoints; then a
third step by other numbers. `kills` kills one process of a run at random moments, twenty times. `speed` times one
process of two threads against two processes of one thread, alternately.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = [
    ("digits", None, "f32"),
    ("digits", None, "bf16"),
    ("pytorch32", "faces", "f32"),
    ("pytorch64", "faces", "f32"),
    ("pytorch64", "faces", "bf16"),
    ("paper64", "faces", "f32"),
    ("svhn32", "faces", "bf16"),
    ("imagenet32", "faces", "f32"),
    ("mnist-cond", "mnist", "f32"),
    ("mnist-cond", "mnist", "bf16"),
]
SMALL = """
[model]
name = "tiny"
height = 8
width = 8
channels = 1
latent = { size = 4, distribution = "uniform" }

[model.generator]
project_channels = 8
project_norm = "per-activation"
norm = { eps = 1e-5, affine = true }
blocks = [
    { channels = 4, kernel = 4, stride = 2, padding = 1 },
    { channels = 1, kernel = 5, stride = 2, padding = 2, output_padding = 1 },
]
output = "tanh"

[model.discriminator]
negative_slope = 0.2
norm = { eps = 1e-5, affine = true }
blocks = [
    { channels = 4, kernel = 4, stride = 2, padding = 1 },
    { channels = 8, kernel = 3, stride = 2, padding = 1 },
]

[training]
batch_size = 16
steps = 3000
order = "both"
learning_rate = 1e-3
learning_rate_decay = "none"
beta1 = 0.5
beta2 = 0.999
adam_eps = 1e-8
weight_decay = 0.0
label_smoothing = 0.0
ema = 0.0
weight_std = 0.1
norm_weight_std = 0.02
"""


def launch(args, processes):
    return args.launcher.split() + ["-n", str(processes)] if processes > 1 else []


def digest(run, step):
    """SHA-256 over the tensors and the state of a checkpoint."""
    found = hashlib.sha256()
    folder = run / "checkpoints" / f"{step:08d}"
    for file in sorted([*folder.glob("*.safetensors"), folder / "state.json"]):
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def must(command):
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr[-2000:]}")


def hashes(args, folder):
    differ = 0
    for preset, data, dtype in ROWS:
        if args.presets and preset not in args.presets:
            continue
        found, resumed = [], []
        for p in (1, 2, 4, 8):
            command = [
                args.train,
                "run",
                "--quiet",
                "--preset",
                preset,
                "--dtype",
                dtype,
                "--steps",
                "2",
                "--seed",
                "1",
            ]
            command += ["--batch-size", "16", "--shards", "8", "--device", "cpu", "--checkpoint-every", "2"]
            command += ["--sample-every", "1000", "--log-every", "1", "--out", str(folder / f"p{p}")]
            must(launch(args, p) + command + (["--data", str(vars(args)[data])] if data else []))
            found.append(digest(folder / f"p{p}", 2))
        for p, q in ((1, 4), (4, 2), (8, 1)):
            must(launch(args, q) + [args.train, "resume", str(folder / f"p{p}"), "--steps", "3", "--quiet"])
            resumed.append(digest(folder / f"p{p}", 3))
        equal = lambda values: "equal" if len(set(values)) == 1 else "DIFFER"
        print(f"| `{preset}` | {dtype} | {found[0]} | {equal(found)} | {resumed[0]} | {equal(resumed)} |", flush=True)
        differ += len(set(found)) > 1 or len(set(resumed)) > 1
        for p in (1, 2, 4, 8):
            shutil.rmtree(folder / f"p{p}")
    if differ:
        sys.exit(f"{differ} rows differ")


def kills(args, folder):
    (folder / "small.toml").write_text(SMALL)
    command = [args.train, "run", "--config", str(folder / "small.toml"), "--shards", "8", "--device", "cpu"]
    command += [
        "--checkpoint-every",
        "200",
        "--sample-every",
        "1000",
        "--log-every",
        "100",
        "--resume-if-exists",
        "--out",
    ]
    whole, killed = folder / "whole", folder / "killed"
    must(command + [str(whole)])
    chance = random.Random(args.seed)
    for i in range(20):
        p = chance.choice([2, 4, 8])
        errors = folder / "errors.txt"
        with open(errors, "w", encoding="utf-8") as to:
            job = subprocess.Popen(launch(args, p) + command + [str(killed)], stdout=subprocess.DEVNULL, stderr=to)
        delay = chance.uniform(0.5, 1.6)
        time.sleep(delay)
        # mpirun is no such process itself: its first word is another.
        names = subprocess.run(
            ["pgrep", "-f", f"^{args.train} run .*{killed}"], capture_output=True, text=True, check=False
        )
        ranks = names.stdout.split()
        if not ranks:
            sys.exit(f"kill {i + 1}: the job has ended: {errors.read_text()}")
        os.kill(int(chance.choice(ranks)), signal.SIGKILL)
        started = time.time()
        code = job.wait(60)
        if code == 0:
            sys.exit(f"kill {i + 1}: the job ended with 0 although a process was killed")
        text = [line for line in errors.read_text().splitlines() if "signal 9" in line]
        print(
            f"{p} processes, {delay:.2f} s: ended in {time.time() - started:.2f} s with {code}; {' '.join(text)}",
            flush=True,
        )
    must(launch(args, 4) + command + [str(killed)])
    is_equal = digest(whole, 3000) == digest(killed, 3000)
    print("equal bytes" if is_equal else "OTHER BYTES")
    if not is_equal:
        sys.exit(1)


def speed(args, folder):
    command = [args.train, "run", "--quiet", "--preset", "pytorch64", "--data", str(args.faces), "--steps", "24"]
    command += ["--log-every", "6", "--checkpoint-every", "1000", "--sample-every", "1000", "--device", "cpu", "--out"]
    found = {"one process of two threads": [], "two processes of one thread": []}
    for i in range(args.runs):
        for (name, values), more in zip(found.items(), (["--threads", "2"], ["--shards", "2"])):
            run = folder / f"{len(more)}-{more[0]}-{i}"
            must(launch(args, 1 if "threads" in more[0] else 2) + command + [str(run)] + more)
            lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
            steps = [line for line in lines if line["event"] == "step"][1:]
            values.append(statistics.median(line["images_per_s"] for line in steps))
            shares = {key: round(steps[-1][key], 4) for key in steps[-1] if key.endswith("_share")}
            print(f"{name}: {values[-1]:.1f} images/s, last interval {shares}", flush=True)
    one, two = (statistics.median(values) for values in found.values())
    print(f"medians {one:.1f} and {two:.1f} images/s: {two / one:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["hashes", "kills", "speed"])
    parser.add_argument("presets", nargs="*", help="of hashes; default: all")
    parser.add_argument("--train", required=True, help="dcgan-train")
    parser.add_argument("--launcher", default="mpirun --oversubscribe --bind-to none", help="starts MPI processes")
    parser.add_argument("--faces", type=Path, help="color images")
    parser.add_argument("--mnist", type=Path, help="MNIST's files")
    parser.add_argument("--seed", type=int, default=1, help="of kills")
    parser.add_argument("--runs", type=int, default=5, help="of speed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"hashes": hashes, "kills": kills, "speed": speed}[args.command](args, Path(folder))


if __name__ == "__main__":
    main()
