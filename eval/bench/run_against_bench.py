"""Compares the speed of a whole run (data, logs, event files, samples, checkpoints) with that of its steps alone.

Run: cargo build --release
     python3 run_against_bench.py DATA [--preset pytorch32] [--rounds 5] [--steps 500] [--ours target/release]
     (Python 3.11; DATA is an argument of `dcgan-train run --data`)

A round runs `dcgan-train bench` and `dcgan-train run` with their defaults and batch size 128, in alternating order.
The run is timed from its first log line to the log line STEPS later. This includes everything between the two lines,
and excludes the start. The machine should be idle otherwise.

Prints images/s of both and their ratio for each round, then the medians. The exit status is 1 if the run is more than
5 % slower.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BATCH = 128
# The default of --log-every. The steps before the first log line are the warm-up.
LOG_EVERY = 50
POLL_S = 0.02
ALLOWED_LOSS = 0.05


def bench(binary, preset, steps):
    command = [binary, "bench", "--preset", preset, "--batch-size", str(BATCH), "--steps", str(steps), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    # The mean, as for the run, so that slow steps count in both.
    return 1e3 * BATCH / json.loads(done.stdout.splitlines()[-1])["step_ms_mean"]


def logged_steps(stats):
    lines = stats.read_text().splitlines(keepends=True) if stats.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return {event["step"] for event in events if event["event"] == "step"}


def run(binary, preset, data, steps):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [binary, "run", "--preset", preset, "--data", data, "--batch-size", str(BATCH)]
        command += ["--ema", "0"]  # bench has no EMA
        command += ["--steps", str(LOG_EVERY + steps), "--log-every", str(LOG_EVERY), "--out", str(out)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen = {}
        ended = False
        while not ended:
            ended = process.poll() is not None
            now = time.perf_counter()
            for step in logged_steps(out / "stats.jsonl"):
                seen.setdefault(step, now)
            time.sleep(POLL_S)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
        return steps * BATCH / (seen[LOG_EVERY + steps] - seen[LOG_EVERY])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--preset", default="pytorch32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500, help=f"a multiple of {LOG_EVERY}")
    parser.add_argument("--ours", type=Path, default=ROOT / "target" / "release")
    args = parser.parse_args()
    if args.steps < LOG_EVERY or args.steps % LOG_EVERY:
        parser.error(f"--steps {args.steps}: not a multiple of {LOG_EVERY}")
    binary = str(args.ours / "dcgan-train")
    rounds = []
    for number in range(args.rounds):
        work = {"bench": lambda: bench(binary, args.preset, args.steps)}
        work["run"] = lambda: run(binary, args.preset, args.data, args.steps)
        order = sorted(work, reverse=number % 2 == 1)
        speed = {name: work[name]() for name in order}
        rounds.append((speed["bench"], speed["run"], speed["run"] / speed["bench"]))
        print("bench {:.1f}, run {:.1f} images/s, ratio {:.3f}".format(*rounds[-1]), flush=True)
    medians = [statistics.median(column) for column in zip(*rounds)]
    print("medians: bench {:.1f}, run {:.1f} images/s, ratio {:.3f}".format(*medians))
    sys.exit(medians[2] < 1 - ALLOWED_LOSS)


if __name__ == "__main__":
    main()
