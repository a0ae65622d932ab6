"""Measures whether samples of the EMA weights are better: the same training with and without --ema.

Run: cargo build --release
     python3 ema.py FOLDER --preset pytorch32 --data DATA [--seeds 0,1,2] [--ema 0.999] [--ours target/release]
         [-- OPTIONS]
     (Python 3.11)

For each seed it runs `dcgan-train run --ema 0` and `--ema 0.999` in FOLDER; OPTIONS are further options of `run`, such
as `--steps 2000 --checkpoint-every 250`. Runs that are there with the same options are continued, and complete ones
are only read.

Prints the random-feature Fréchet distances of both at the same steps as a table in Markdown, then the distances at the
end and the lowest ones, as means over the seeds. Training itself does not depend on the EMA: the script checks that the
losses of both runs are equal, so that only the samples differ.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def train(binary, folder, args, seed, ema):
    out = folder / f"{args.preset or 'chosen'}-s{seed}-ema{ema:g}"
    command = [binary, "run", "--out", out, "--resume-if-exists", "--seed", str(seed), "--ema", f"{ema:g}"]
    command += ["--preset", args.preset] if args.preset else []
    command += ["--data", args.data] if args.data else []
    command += args.options
    print(" ".join(map(str, command)), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"exit status {done.returncode}")
    return [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]


def distances(events):
    checkpoints = [event for event in events if event["event"] == "checkpoint" and event["frechet"] is not None]
    return {event["step"]: event["frechet"] for event in checkpoints}


def losses(events):
    return [(event["step"], event["loss_d"], event["loss_g"]) for event in events if event["event"] == "step"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset")
    parser.add_argument("--data")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--ours", type=Path, default=ROOT / "target" / "release")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.options = words[end + 1 :]
    args.folder.mkdir(parents=True, exist_ok=True)
    binary = args.ours.resolve() / "dcgan-train"
    print(f"| seed | step | --ema 0 | --ema {args.ema:g} | ratio |\n|---|---|---|---|---|")
    ends, lowest, better, steps = [], [], 0, 0
    for seed in map(int, args.seeds.split(",")):
        runs = [train(binary, args.folder, args, seed, ema) for ema in (0, args.ema)]
        if losses(runs[0]) != losses(runs[1]):
            sys.exit(f"seed {seed}: the losses of both runs differ; give both the same device and options")
        plain, ema = map(distances, runs)
        same = sorted(plain.keys() & ema.keys())
        if not same:
            sys.exit(f"seed {seed}: no checkpoint with a distance; use a smaller --checkpoint-every")
        for step in same:
            ratio = ema[step] / plain[step]
            print(f"| {seed} | {step} | {plain[step]:.4f} | {ema[step]:.4f} | {ratio:.3f} |", flush=True)
        better += sum(ema[step] < plain[step] for step in same)
        steps += len(same)
        ends.append((plain[same[-1]], ema[same[-1]]))
        lowest.append((min(plain.values()), min(ema.values())))
    for name, pairs in (("at the end", ends), ("lowest", lowest)):
        plain, ema = (statistics.mean(column) for column in zip(*pairs))
        print(f"{name}: --ema 0 {plain:.4f}, --ema {args.ema:g} {ema:.4f} (means of {len(pairs)} seeds)")
    print(f"the EMA is better at {better} of {steps} checkpoints")


if __name__ == "__main__":
    main()
