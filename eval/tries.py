"""What the paper leaves open about the networks whose features it evaluates: short trainings, one setting changed each.

Run: cargo build --release
     python3 tries.py FOLDER --images tiny-imagenet-32.zip --labels cifar-10-batches-bin [--width 4] [--steps 3000]
         [--tries base,mirror] [--repeats 5] [--ours target/release]
     (Python 3.11, numpy, safetensors)

The base is the preset imagenet32 with 1/WIDTH of its channels, in bf16, where every minibatch of 128 images updates
both networks. Every try sees as many images as the base, but for `alternate`, which has as many updates. D's features
are evaluated on CIFAR-10 with 400 labels per class (section 5.1). Then the features of the base are pooled in other
ways and restricted to some layers, with one draw of labels. In place of an EMA, which this program keeps of G alone,
D's weights in the last checkpoints of the base are averaged.

Trains in FOLDER, one after another at nice 19. A run that is there is continued, a complete one is only read: the
command can be stopped and repeated. Prints a table in Markdown.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
from stability import narrow, same_settings, setting, toml

ROOT = Path(__file__).resolve().parents[1]


def training(steps=1.0, **values):
    """Sets values of [training]; `steps` is the factor on the number of steps."""

    def change(config):
        for key, value in values.items():
            setting(key, value)(config)

    return change, steps


def latent(key, value):
    return lambda config: config["model"]["latent"].update({key: value}), 1.0


def first_bias(config):
    """A bias in D's first layer. Without it, D's batch norm hides the contrast of samples from D."""
    blocks = config["model"]["discriminator"]["blocks"]
    config["model"]["discriminator"]["bias"] = [True] + [False] * len(blocks)


# What is changed, how, and the factor on the number of steps.
TRIES = {
    "base": ("nothing", *training()),
    "alternate": ("each minibatch updates G or D, as the authors do", *training(2.0, order="alternate")),
    "l2": ("L2 1e-5", *training(weight_decay=1e-5)),
    "smoothing": ("one-sided label smoothing 0.1", *training(label_smoothing=0.1)),
    "mirror": ("mirrored images", *training(mirror=True)),
    "batch-64": ("batches of 64", *training(2.0, batch_size=64)),
    "batch-256": ("batches of 256", *training(0.5, batch_size=256)),
    "rate-1e-4": ("learning rate 1e-4", *training(learning_rate=1e-4)),
    "decay": ("learning rate falls to zero over the second half", *training(learning_rate_decay="linear")),
    "z-100": ("z of size 100", *latent("size", 100)),
    "normal": ("z from N(0, 1)", *latent("distribution", "normal")),
    "bias": ("bias in the first layer of D", first_bias, 1.0),
    "wide": ("twice the width", lambda config: None, 1.0),
    "seed-1": ("nothing, seed 1", *training()),
    "seed-2": ("nothing, seed 2", *training()),
    "seed-3": ("nothing, seed 3", *training()),
}
PER_CLASS = 400
AVERAGED = 10  # checkpoints of the base, EVERY steps apart
EVERY = 100


def train(binary, args, name):
    """The folder of the last checkpoint."""
    _, change, factor = TRIES[name]
    text = subprocess.run([binary, "presets", "imagenet32"], check=True, stdout=subprocess.PIPE, text=True).stdout
    config = tomllib.loads(text)
    narrow(config, args.width // 2 if name == "wide" else args.width)
    config["model"]["name"] = f"imagenet32-{name}"
    config["training"].update(order="both", batch_size=128, dtype="bf16")
    change(config)
    steps = round(args.steps * factor)
    seed = name.removeprefix("seed-") if name.startswith("seed-") else "0"
    out, file = args.folder / name, args.folder / f"{name}.toml"
    file.write_text(toml(config))
    checkpoint = out / "checkpoints" / f"{steps:08}"
    if not (out / "result.json").exists():
        print(name, file=sys.stderr, flush=True)
        command = ["nice", "-n", "19", binary, "run", "--quiet", "--resume-if-exists", "--config", file, "--out", out]
        command += ["--data", args.images, "--seed", seed, "--steps", str(steps)]
        keep, every = (AVERAGED, EVERY) if name == "base" else (1, 500)
        command += ["--keep", str(keep), "--checkpoint-every", str(every)]
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if code:
            sys.exit(f"{name}: exit status {code}")
    return checkpoint


def evaluate(binary, args, name, checkpoint, options=()):
    """The result of `dcgan-eval cifar10`, from FOLDER if it is there."""
    file = args.folder / f"{name}.json"
    if not file.exists():
        command = ["nice", "-n", "19", binary, "cifar10", "--model", checkpoint, "--data", args.labels, "--json"]
        command += ["--labels-per-class", str(PER_CLASS), "--repeats", str(args.repeats), "--selection-draws", "2"]
        command += ["--c", args.c, "--baseline", "none", *options]
        file.write_text(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return json.loads(file.read_text())


def average(args, last):
    """A model folder with the means of D's weights in the last checkpoints. Their running statistics are not used."""
    from safetensors.numpy import load_file, save_file

    folder = args.folder / "average"
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(exist_ok=True)
    steps = [int(last.name) - EVERY * i for i in range(AVERAGED)]
    networks = [load_file(last.parent / f"{step:08}" / "discriminator.safetensors") for step in steps]
    means = {name: np.mean([network[name] for network in networks], 0) for name in networks[0]}
    save_file(means, folder / "discriminator.safetensors")
    shutil.copy(last / "config.json", folder)
    return folder


def pooled(features, how):
    """Features `(n, channels, 4, 4)` pooled further."""
    n, channels = features.shape[:2]
    cells = features.reshape(n, channels, 2, 2, 2, 2)
    return {
        "max 4x4": lambda: features,
        "max 2x2": lambda: cells.max((3, 5)),
        "max 1x1": lambda: features.max((2, 3)),
        "mean of 2x2 of the 4x4 maxima": lambda: cells.mean((3, 5)),
    }[how]()


def probes(binary, args, checkpoint):
    """Accuracy of other poolings and layers of the base, one draw of labels: (name, features, accuracy, C)."""
    from safetensors.numpy import load_file, save_file

    done = args.folder / "probes.json"
    if done.exists():
        return json.loads(done.read_text())
    sets = {}
    for split in ("train", "test"):
        out = args.folder / f"{split}.safetensors"
        command = ["nice", "-n", "19", binary, "features", "--model", checkpoint, "--data", args.labels]
        subprocess.run([*command, "--split", split, "--out", out], check=True, stdout=subprocess.DEVNULL)
        loaded = load_file(out)
        features, labels = loaded["features"], loaded["labels"]
        if split == "train":
            rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:PER_CLASS] for c in range(10)]))
            features, labels = features[rows], labels[rows]
        sets[split] = (features.reshape(len(labels), -1, 4, 4), labels)
        out.unlink()
    config = json.loads((checkpoint / "config.json").read_text())
    channels = [block["channels"] for block in config["discriminator"]["blocks"]]
    ends = np.cumsum(channels)
    cases = [("max 4x4, as in the paper", 0, len(channels), "max 4x4")]
    cases += [(how, 0, len(channels), how) for how in ("max 2x2", "max 1x1", "mean of 2x2 of the 4x4 maxima")]
    cases += [(f"layers 1 to {last}", 0, last, "max 4x4") for last in range(2, len(channels))]
    cases += [(f"layers {first + 1} to {len(channels)}", first, len(channels), "max 4x4") for first in (2, 4)]
    found = []
    for name, first, last, how in cases:
        start = ends[first - 1] if first else 0
        for split, (features, labels) in sets.items():
            part = pooled(features[:, start : ends[last - 1]], how)
            values = np.ascontiguousarray(part.reshape(len(labels), -1), np.float32)
            save_file({"features": values, "labels": labels.astype(np.uint32)}, args.folder / f"{split}.safetensors")
        command = ["nice", "-n", "19", binary, "probe", "--c", args.c, "--json"]
        command += [word for split in sets for word in (f"--{split}", args.folder / f"{split}.safetensors")]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        found.append((name, values.shape[1], result["accuracy_percent"], result["c"]))
    for split in sets:
        (args.folder / f"{split}.safetensors").unlink()
    done.write_text(json.dumps(found))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--tries", default=",".join(TRIES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--c", default="1e-4,3e-4,1e-3,3e-3")
    parser.add_argument("--ours", type=Path, default=ROOT / "target" / "release")
    args = parser.parse_args()
    if args.steps % EVERY or args.steps < AVERAGED * EVERY:
        parser.error(f"--steps {args.steps}: expected a multiple of {EVERY}, at least {AVERAGED * EVERY}")
    args.folder.mkdir(parents=True, exist_ok=True)
    args.images, args.labels = Path(args.images).resolve(), Path(args.labels).resolve()
    keys = ("images", "labels", "width", "steps", "repeats", "c")
    same_settings(args.folder, **{key: getattr(args, key) for key in keys})
    binaries = [args.ours.resolve() / name for name in ("dcgan-train", "dcgan-eval")]
    rows, base = [], None
    for name in args.tries.split(","):
        checkpoint = train(binaries[0], args, name)
        rows.append((TRIES[name][0], evaluate(binaries[1], args, name, checkpoint)))
        if name == "base":
            base = checkpoint
            stored = evaluate(binaries[1], args, "stored", checkpoint, ["--statistics", "stored"])
            rows.append(("nothing, with the running statistics of D instead of recalibrated ones", stored))
            found = evaluate(binaries[1], args, "averaged", average(args, checkpoint))
            rows.append((f"nothing, D's weights averaged over {AVERAGED} checkpoints, {EVERY} steps apart", found))
    print("| changed | features | accuracy % | C |\n|---|---|---|---|")
    for label, found in rows:
        accuracy = f"{found['accuracy_percent']:.2f}"
        if found["interval95"] is not None:  # one draw has none
            accuracy += f" ± {found['interval95']:.2f}"
        print(f"| {label} | {found['features']:,} | {accuracy} | {found['c']:g} |")
    if base:
        print("\n| features of the base, one draw | features | accuracy % | C |\n|---|---|---|---|")
        for name, features, accuracy, c in probes(binaries[1], args, base):
            print(f"| {name} | {features:,} | {accuracy:.2f} | {c:g} |")


if __name__ == "__main__":
    main()
