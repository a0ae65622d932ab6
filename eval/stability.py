"""Ablations of the architecture guidelines of section 3 of the paper: short trainings with all of them, and with each
one broken.

Run: cargo build --release
     python3 stability.py FOLDER --data cifar10=DIR --data faces=faces.zip [--presets pytorch32,svhn32] [--seeds 1,2,3]
         [--steps 1500] [--width 4] [--ours target/release] [--figure stability.png]
     (Python 3.11; matplotlib for the figure)

Trains PRESETS x VARIANTS x SEEDS x DATA in FOLDER, one after another at nice 19. A run that is there is continued, a
complete one is only read: the command can be stopped and repeated. Networks have 1/WIDTH of the preset's channels.
Batches of 64, no EMA, everything else as in the preset.

Prints a table in Markdown: for each preset, dataset and variant the mean of the lowest and of the last random-feature
Fréchet distances over the seeds (lower is better), the mean diversity of the last samples (near 0 all samples are
alike, near 1 they differ like real images), and how many seeds had an alarm or diverged.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pooled(config):
    """Convolutions of stride 1, with 2x2 max pooling behind them in D and nearest-neighbour upsampling before in G."""
    for network, key in (("generator", "upsample"), ("discriminator", "pool")):
        for block in config["model"][network]["blocks"]:
            if block["stride"] == 2:
                kernel = block["kernel"] - (1 - block["kernel"] % 2)  # odd kernels keep the size
                block.update({"kernel": kernel, "stride": 1, "padding": kernel // 2, key: 2})
                block.pop("output_padding", None)


def norms(value):
    def change(config):
        for network in ("generator", "discriminator"):
            of_network = config["model"][network]
            layers = len(of_network["blocks"]) + len(of_network.get("dense", [])) + 1
            of_network["norm"]["layers"] = [value] * layers

    return change


def setting(key, value):
    def change(config):
        config["training"][key] = value

    return change


def activation(name):
    def change(config):
        config["model"]["discriminator"]["activation"] = name

    return change


# Label, and how the configuration changes.
VARIANTS = {
    "rules": ("all guidelines", lambda config: None),
    "pooling": ("pooling and upsampling instead of strides", pooled),
    "no-norm": ("no batch norm", norms(False)),
    "norm-everywhere": ("batch norm in every layer", norms(True)),
    "relu-d": ("ReLU in D", activation("relu")),
    "sigmoid-d": ("sigmoid in D", activation("sigmoid")),
    "rate-1e-3": ("learning rate 1e-3", setting("learning_rate", 1e-3)),
    "beta-0.9": ("beta1 0.9", setting("beta1", 0.9)),
}


def toml(config):
    def value(x):
        if isinstance(x, dict):
            return "{ " + ", ".join(f"{key} = {value(item)}" for key, item in x.items()) + " }"
        if isinstance(x, list):
            return "[" + ", ".join(map(value, x)) + "]"
        return json.dumps(x)

    lines = []
    for table, of_table in config.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {value(item)}" for key, item in of_table.items()]
    return "\n".join(lines) + "\n"


def narrow(config, width):
    model = config["model"]
    for network in ("generator", "discriminator"):
        of_network = model[network]
        if "project_channels" in of_network:
            of_network["project_channels"] //= width
        last = of_network["blocks"][-1] if network == "generator" else None
        for block in of_network["blocks"]:
            if block is not last:
                block["channels"] //= width


def train(binary, folder, args, preset, data, variant, seed):
    """The events of a run, and whether it ended."""
    name, path = data
    out = folder / f"{preset}-{name}-{variant}-s{seed}"
    done = folder / f"{out.name}.exit"
    if not done.exists():
        text = subprocess.run([binary, "presets", preset], check=True, capture_output=True, text=True).stdout
        config = tomllib.loads(text)
        narrow(config, args.width)
        config["training"].update(batch_size=64, ema=0.0)
        VARIANTS[variant][1](config)
        file = folder / f"{out.name}.toml"
        file.write_text(toml(config))
        command = ["nice", "-n", "19", binary, "run", "--quiet", "--resume-if-exists", "--config", file, "--data", path]
        command += ["--seed", str(seed), "--steps", str(args.steps), "--out", out, "--log-every", "50"]
        command += ["--checkpoint-every", str(args.steps // 5), "--sample-every", str(args.steps // 5), "--keep", "1"]
        print(f"{out.name}", file=sys.stderr, flush=True)
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if code in (2, 130):  # wrong options, or interrupted
            sys.exit(f"{out.name}: exit status {code}")
        done.write_text(f"{code}\n")
    lines = (out / "stats.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], int(done.read_text()) == 0


def summary(runs):
    """Means over the seeds."""
    lowest, last, diversity, bad = [], [], [], 0
    for events, ended in runs:
        found = [e["frechet"] for e in events if e["event"] == "checkpoint" and e["frechet"] is not None]
        samples = [e["diversity"] for e in events if e["event"] == "sample"]
        found = [x for x in found if math.isfinite(x)]
        lowest.append(min(found, default=math.nan))
        last.append(found[-1] if found and ended else math.nan)
        diversity.append(samples[-1] if samples else math.nan)
        bad += not ended or any(e["event"] == "alarm" for e in events)
    mean = lambda values: statistics.mean(values) if values else math.nan
    spread = statistics.stdev(last) if len(last) > 1 else 0.0
    return {"lowest": mean(lowest), "last": mean(last), "spread": spread, "diversity": mean(diversity), "bad": bad}


def figure(path, rows):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = sorted({(preset, data) for preset, data, _ in rows})
    fig, axes = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 4.2), sharey=True, squeeze=False)
    for axis, (preset, data) in zip(axes[0], groups):
        for place, variant in enumerate(VARIANTS):
            runs = rows.get((preset, data, variant), [])
            for events, ended in runs:
                points = [e["frechet"] for e in events if e["event"] == "checkpoint" and e["frechet"] is not None]
                alarm = not ended or any(e["event"] == "alarm" for e in events)
                if points:
                    axis.plot(points[-1], place, "x" if alarm else "o", color="C3" if alarm else "C0")
        axis.set_xscale("log")
        axis.set_yticks(range(len(VARIANTS)), [label for label, _ in VARIANTS.values()])
        axis.set_title(f"{preset}, {data}")
        axis.set_xlabel("last Fréchet distance")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].invert_yaxis()
    fig.suptitle("one mark a seed; crosses: alarm or divergence")
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--presets", default="pytorch32,svhn32")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--ours", type=Path, default=ROOT / "target" / "release")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    binary = args.ours.resolve() / "dcgan-train"
    rows = {}
    for seed in map(int, args.seeds.split(",")):
        for preset in args.presets.split(","):
            for data in (item.split("=", 1) for item in args.data):
                for variant in args.variants.split(","):
                    run = train(binary, args.folder, args, preset, data, variant, seed)
                    rows.setdefault((preset, data[0], variant), []).append(run)
    print("| preset | data | networks | lowest | last | diversity | alarms or divergence |\n|---|---|---|---|---|---|---|")
    for (preset, data, variant), runs in sorted(rows.items(), key=lambda r: (r[0][:2], list(VARIANTS).index(r[0][2]))):
        s = summary(runs)
        cells = [preset, data, VARIANTS[variant][0], f"{s['lowest']:.2f}", f"{s['last']:.2f} ± {s['spread']:.2f}"]
        cells += [f"{s['diversity']:.2f}", f"{s['bad']} of {len(runs)}"]
        print("| " + " | ".join(cells) + " |")
    if args.figure:
        figure(args.figure, rows)


if __name__ == "__main__":
    main()
