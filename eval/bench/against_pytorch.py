"""Compares speed and memory of our `bench` commands with PyTorch in its two memory layouts, in alternating rounds.

Run: cargo build --release
     python3 against_pytorch.py [--rows REGEX] [--rounds 5] [--steps 7] [--ours target/release] [--log FILE]
     (torch; Python 3.11)

A round of a row runs our program, then PyTorch (pytorch_step.py) in its default layout and in channels-last. Each
runs in its own process, with two threads and batch size 128. The machine should be idle otherwise.

The table contains, over all rounds: the median images/s; the median, minimum and maximum of the ratio of our speed to
the faster PyTorch layout of the same round; and the median of the ratio of our peak memory to the PyTorch layout with
less memory, which includes the libraries that PyTorch loads. FILE receives a line of JSON for every process. If a
process fails, its row is marked, the other rows continue, and the exit status is 1.
"""

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMON = ["--batch-size", "128", "--threads", "2"]
LAYOUTS = {"PyTorch": [], "PyTorch channels-last": ["--channels-last"]}
COLUMNS = ["row", "ours", *LAYOUTS, "ours / faster PyTorch", "lowest", "highest", "memory, ours / PyTorch"]


class Row(NamedTuple):
    name: str
    # Arguments of both programs.
    shared: list[str]
    ours: list[str] = []
    pytorch: list[str] = []
    layouts: list[str] = list(LAYOUTS)
    binary: str = "dcgan-train"


class RunFailed(Exception):
    pass


def table(steps):
    def step(preset):
        return ["--preset", preset, "--steps", str(steps)]

    def images(preset):
        return ["--preset", preset, "--images", "10000"]

    presets = ["pytorch64", "pytorch32", "paper64", "svhn32", "imagenet32"]
    rows = [Row(f"step {preset}", step(preset)) for preset in presets]
    for preset in ["pytorch64", "pytorch32"]:
        rows.append(Row(f"step {preset}, no unused gradients of D", step(preset), pytorch=["--skip-d-grads"]))
        # Autocast; in bf16, PyTorch's default layout is the slower one.
        bf16 = {"ours": ["--dtype", "bf16"], "pytorch": ["--bf16"], "layouts": ["PyTorch channels-last"]}
        rows.append(Row(f"step {preset} in bf16", step(preset), **bf16))
    work = ["--work", "features"]
    for preset in ["svhn32", "imagenet32"]:
        rows.append(Row(f"features {preset}", images(preset), pytorch=work, binary="dcgan-eval"))
    work = ["--work", "samples"]
    rows.append(Row("samples pytorch64", images("pytorch64"), ours=work, pytorch=work))
    return rows


def commands(row, binaries):
    """Command lines by program and layout, ours first."""
    step = [sys.executable, str(HERE / "pytorch_step.py"), *row.shared, *COMMON, *row.pytorch]
    ours = [str(binaries / row.binary), "bench", *row.shared, *COMMON, *row.ours, "--json"]
    return {"ours": ours} | {layout: [*step, *LAYOUTS[layout]] for layout in row.layouts}


def measure(command):
    """Runs a command and returns the JSON in the last line of its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise RunFailed(str(error)) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["nothing on stderr"]
        # Hints can follow the line with the error.
        reason = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])
        raise RunFailed(f"exit status {done.returncode}: {reason}")
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
        return result | {key: float(result[key]) for key in ("images_per_s", "peak_rss_bytes")}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise RunFailed(f"no result in the last line of output ({error!r})") from error


def compare(row, options, log):
    """The cells of the row after its name."""
    rounds = []
    for i in range(options.rounds):
        results = {}
        for form, command in commands(row, options.ours).items():
            record = {"row": row.name, "round": i, "form": form, "time": time.strftime("%FT%T%z")}
            try:
                results[form] = measure(command)
                log(record | results[form] | {"command": shlex.join(command)})
            except RunFailed as failure:
                log(record | {"failed": str(failure), "command": shlex.join(command)})
                raise RunFailed(f"{form}, {failure}") from failure
        rounds.append(results)
        speeds = ", ".join(f"{form} {result['images_per_s']:.1f}" for form, result in results.items())
        print(f"{row.name}, round {i + 1} of {options.rounds}: {speeds} images/s", file=sys.stderr, flush=True)

    def median_speed(form):
        return f"{statistics.median(results[form]['images_per_s'] for results in rounds):,.1f}"

    def ratios(key, best):
        return [results["ours"][key] / best(results[layout][key] for layout in row.layouts) for results in rounds]

    speed, memory = ratios("images_per_s", max), ratios("peak_rss_bytes", min)
    return [
        median_speed("ours"),
        *(median_speed(layout) if layout in row.layouts else "" for layout in LAYOUTS),
        *(f"{summary(speed):.2f}" for summary in (statistics.median, min, max)),
        f"{statistics.median(memory):.2f}",
    ]


def print_environment():
    cpuinfo = Path("/proc/cpuinfo")
    model_name = re.search(r"^model name\s*:\s*(.*)", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    print(f"date: {time.strftime('%F %T %z')}")
    print(f"CPU: {model_name[1] if model_name else platform.processor() or 'unknown'}, {os.cpu_count()} cores")
    print(f"torch: {metadata.version('torch')}, Python {platform.python_version()}")
    print(f"kernel: {platform.release()}")
    print(f"commit: {commit or 'unknown'}")
    print(f"command: {shlex.join(['python3', *sys.argv])}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=re.compile, default=re.compile(""), metavar="REGEX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release", help="folder with the binaries")
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: expected at least 1")
    rows = [row for row in table(options.steps) if options.rows.search(row.name)]
    if not rows:
        parser.error(f"no row matches; rows are: {'; '.join(row.name for row in table(options.steps))}")

    def log(record):
        if options.log:
            with options.log.open("a") as file:
                print(json.dumps(record), file=file)

    print_environment()
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    failed = False
    for row in rows:
        try:
            cells = compare(row, options, log)
        except RunFailed as failure:
            failed = True
            print(f"{row.name}: {failure}", file=sys.stderr, flush=True)
            cells = ["failed", *[""] * (len(COLUMNS) - 2)]
        print(f"| {row.name} | {' | '.join(cells)} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
