"""Ablations of the architecture guidelines of section 3 of the paper: short trainings with all of them, and with each
one broken.

Run: cargo build --release
     python3 stability.py FOLDER --data cifar10=DIR --data faces=faces.zip [--presets pytorch32,svhn32] [--seeds 1,2,3]
         [--steps 1500] [--width 4] [--ours target/release] [--figure stability.png]
         [--samples samples.png]
     (Python 3.11; matplotlib for the figure)

Trains PRESETS x VARIANTS x SEEDS x DATA in FOLDER, one after another at nice 19. A run that is there is continued, a
complete one is only read: the command can be stopped and repeated. Networks have 1/WIDTH of the preset's channels.
Batches of 64, no EMA, everything else as in the preset.

Prints a table in Markdown: for each variant, preset and dataset the mean and standard deviation over the seeds of the
last random-feature Fréchet distance (lower is better); the mean diversity of the last samples (near 0 all samples are
alike, near 1 they differ like real images); and in how many seeds an alarm said that D is too strong, samples were
alike or grey at the end (diversity below 0.3, as in the alarm), or training diverged. Means are of the seeds that did
not diverge. Means are bold if the distances of the seeds do not overlap with those of all guidelines: all are larger,
or all are smaller. The image of --samples shows samples of the last step, of the first seed on the last dataset.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import textwrap
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


def no_norm(config):
    """Biases instead of batch norm."""
    for network, layers in layer_counts(config):
        config["model"][network]["norm"]["layers"] = [False] * layers
        config["model"][network]["bias"] = True


def norm_everywhere(head):
    """Batch norm in G's output and D's first layer too, and in D's head if `head`."""

    def change(config):
        for network, layers in layer_counts(config):
            with_head = head or network == "generator"
            config["model"][network]["norm"]["layers"] = [True] * (layers - 1) + [with_head]

    return change


def layer_counts(config):
    """Each network and the number of its layers."""
    for network in ("generator", "discriminator"):
        of_network = config["model"][network]
        yield network, len(of_network["blocks"]) + len(of_network.get("dense", [])) + 1


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
    "no-norm": ("no batch norm (biases instead)", no_norm),
    "norm-outer": ("batch norm in G's output and D's input too", norm_everywhere(head=False)),
    "norm-everywhere": ("the same, and in D's head", norm_everywhere(head=True)),
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


def same_settings(folder, **settings):
    """Records the settings of the results in a folder, and refuses others; settings can be added."""
    file = folder / "settings.json"
    settings = {key: str(value) for key, value in settings.items()}
    recorded = json.loads(file.read_text()) if file.exists() else {}
    others = [key for key, value in settings.items() if recorded.get(key, value) != value]
    if others:
        differ = [f"{key} {recorded[key]}, not {settings[key]}" for key in others]
        sys.exit(f"{folder} has results of other settings ({'; '.join(differ)}): name another folder")
    file.write_text(json.dumps({**recorded, **settings}, indent=1) + "\n")


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
        run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        sys.stderr.write(run.stderr)
        code = run.returncode
        # A run that diverged is a result; one that was interrupted or killed is not.
        if code and not (code == 1 and "is not finite" in run.stderr):
            sys.exit(f"{out.name}: exit status {code}")
        done.write_text(f"{code}\n")
    lines = (out / "stats.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], int(done.read_text()) == 0


COLLAPSED = 0.3  # as in crates/dcgan-train/src/alarm.rs


def result(events, ended):
    """What is reported of a run."""
    found = [e["frechet"] for e in events if e["event"] == "checkpoint" and e["frechet"] is not None]
    diversity = ([math.nan] + [e["diversity"] for e in events if e["event"] == "sample"])[-1]
    return {
        "last": found[-1] if found else math.nan,
        "diversity": diversity,
        "too strong": any(e["event"] == "alarm" and e["alarm"] == "discriminator_wins" for e in events),
        "collapsed": ended and diversity < COLLAPSED,
        "diverged": not ended,
    }


def ended(results):
    return [r for r in results if not r["diverged"]]


def cell(results, guidelines):
    """Means over the seeds that did not diverge, and counts over all of them."""
    parts = []
    if ended(results):
        last, others = ([r["last"] for r in ended(found)] for found in (results, guidelines))
        spread = f" ± {statistics.stdev(last):.2f}" if len(last) > 1 else ""
        differs = len(last) > 1 and others and (min(last) > max(others) or max(last) < min(others))
        mark = "**" if differs else ""
        diversity = statistics.mean(r["diversity"] for r in ended(results))
        parts += [f"{mark}{statistics.mean(last):.2f}{mark}{spread}", f"{diversity:.2f}"]
    counts = {key: sum(r[key] for r in results) for key in ("too strong", "collapsed", "diverged")}
    return "; ".join(parts + [f"{n} {key}" for key, n in counts.items() if n])


def figure(path, rows):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = sorted({(preset, data) for preset, data, _ in rows})
    fig, axes = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 4.2), sharey=True, squeeze=False)
    for axis, (preset, data) in zip(axes[0], groups):
        for place, variant in enumerate(VARIANTS):
            for found in rows.get((preset, data, variant), []):
                failed = found["too strong"] or found["collapsed"] or found["diverged"]
                axis.plot(found["last"], place, "x" if failed else "o", color="C3" if failed else "C0")
        axis.set_xscale("log")
        axis.set_yticks(range(len(VARIANTS)), [label for label, _ in VARIANTS.values()])
        axis.set_title(f"{preset}, {data}")
        axis.set_xlabel("last Fréchet distance")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].invert_yaxis()
    fig.suptitle("one mark a seed; crosses: D too strong, samples collapsed, or diverged")
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def samples(path, args):
    """A panel of samples for each preset and variant."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    presets, variants = args.presets.split(","), args.variants.split(",")
    name, seed = args.data[-1].split("=", 1)[0], args.seeds.split(",")[0]
    size = (1.4 * len(variants), 1.6 * len(presets))
    fig, axes = plt.subplots(len(presets), len(variants), figsize=size, squeeze=False)
    for row, preset in zip(axes, presets):
        for axis, variant in zip(row, variants):
            run = args.folder / f"{preset}-{name}-{variant}-s{seed}"
            grid = plt.imread(sorted((run / "samples").glob("*.png"))[-1])
            part = grid.shape[0] // 2  # 4 x 4 of the 8 x 8 samples of a grid
            axis.imshow(grid[:part, :part])
            if preset == presets[0]:
                axis.set_title(textwrap.fill(VARIANTS[variant][0], 22), fontsize=7)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(preset)
    fig.tight_layout()
    fig.savefig(path, dpi=80)


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
    parser.add_argument("--samples", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    paths = {f"data {name}": Path(path).resolve() for name, path in (item.split("=", 1) for item in args.data)}
    same_settings(args.folder, steps=args.steps, width=args.width, **paths)
    binary = args.ours.resolve() / "dcgan-train"
    rows = {}
    for seed in map(int, args.seeds.split(",")):
        for preset in args.presets.split(","):
            for data in (item.split("=", 1) for item in args.data):
                for variant in args.variants.split(","):
                    run = train(binary, args.folder, args, preset, data, variant, seed)
                    rows.setdefault((preset, data[0], variant), []).append(result(*run))
    groups = sorted({(preset, data) for preset, data, _ in rows})
    print("| networks | " + " | ".join(f"{preset}, {data}" for preset, data in groups) + " |")
    print("|" + "---|" * (len(groups) + 1))
    for variant in args.variants.split(","):
        cells = [cell(rows[*group, variant], rows.get((*group, "rules"), [])) for group in groups]
        print("| " + " | ".join([VARIANTS[variant][0], *cells]) + " |")
    if args.figure:
        figure(args.figure, rows)
    if args.samples:
        samples(args.samples, args)


if __name__ == "__main__":
    main()
