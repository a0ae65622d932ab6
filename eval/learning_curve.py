"""The accuracy of D's features on CIFAR-10 or SVHN against the steps of a run (sections 5.1 and 5.2).

Run: cargo build --release
     python3 learning_curve.py RUN --data cifar-10-batches-bin [--task cifar10] [--steps 1000,2000,4000]
         [--labels-per-class 400] [--repeats 5] [--curve curve.json] [--figure curve.png] [--ours target/release]
         [-- OPTIONS]
     (Python 3.11; matplotlib for the figure)

Evaluates checkpoints of RUN with `dcgan-eval cifar10`, or `dcgan-eval svhn` with 100 labels per class by default;
OPTIONS are further options of it, such as `--statistics running`. Without --steps, each checkpoint that is 1.3 times
as far as the one before, and the last. Results are kept in the file of --curve (default RUN/curve.json): a command that
is repeated evaluates new checkpoints only.

Prints a table in Markdown: steps, epochs, accuracy on the held-out training images at the best C, and on the test
images (mean and interval over the draws of labels). The checkpoint to use is the one with the best held-out accuracy;
test images have no part in the choice.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Task(NamedTuple):
    """The defaults of a task."""

    name: str
    labels_per_class: int
    c: str


TASKS = {"cifar10": Task("CIFAR-10", 400, "1e-4,3e-4,1e-3"), "svhn": Task("SVHN", 100, "1e-4,2e-4,5e-4,1e-3,2e-3")}


def chosen(steps):
    """Steps at a ratio of 1.3 at least, and the last."""
    kept = []
    for step in steps:
        if not kept or step >= 1.3 * kept[-1]:
            kept.append(step)
    return kept if kept[-1] == steps[-1] else [*kept, steps[-1]]


def evaluate(binary, args, checkpoint):
    command = ["nice", "-n", "5", binary, args.task, "--model", checkpoint, "--data", args.data, "--baseline", "none"]
    command += ["--labels-per-class", str(args.labels_per_class), "--repeats", str(args.repeats), "--json"]
    command += ["--selection-draws", str(args.selection_draws), "--c", args.c, *args.options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{checkpoint}: exit status {done.returncode}")
    found = json.loads(done.stdout)
    held_out = dict(map(tuple, found["held_out_error_percent"]))
    # SVHN's measure is the error.
    accuracy = found["accuracy_percent"] if "accuracy_percent" in found else 100 - found["error_percent"]
    measured = {"accuracy_percent": accuracy, "held_out_percent": 100 - held_out[found["c"]]}
    keys = ["interval95", "c", "features", "statistics", "seconds", "weights_sha256"]
    return {**measured, **{key: found[key] for key in keys}}


def epochs(run, step):
    """Epochs at a step."""
    events = map(json.loads, (run / "stats.jsonl").read_text().splitlines())
    lines = [event for event in events if event["event"] == "step"]
    data = run / "data.json"
    if not lines or not data.exists():
        return None
    images = json.loads(data.read_text())["images"]
    return lines[-1]["images"] / lines[-1]["step"] * step / images


def figure(path, points, task):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots(figsize=(6, 4))
    x = [point["step"] for point in points]
    test = [point["accuracy_percent"] for point in points]
    halves = [point["interval95"] or 0 for point in points]
    axis.errorbar(x, test, halves, marker="o", label="test images, mean of the draws")
    axis.plot(x, [point["held_out_percent"] for point in points], "s--", label="held-out training images")
    axis.set_xscale("log")
    axis.set_xlabel("training steps")
    axis.set_ylabel(f"accuracy on {TASKS[task].name} in percent")
    axis.grid(alpha=0.3)
    axis.legend()
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--task", choices=TASKS, default="cifar10")
    parser.add_argument("--steps")
    parser.add_argument("--labels-per-class", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--selection-draws", type=int, default=2)
    parser.add_argument("--c")
    parser.add_argument("--curve", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--ours", type=Path, default=ROOT / "target" / "release")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.options = words[end + 1 :]
    args.labels_per_class = args.labels_per_class or TASKS[args.task].labels_per_class
    args.c = args.c or TASKS[args.task].c
    binary = args.ours.resolve() / "dcgan-eval"
    there = sorted(int(path.name) for path in (args.run / "checkpoints").iterdir() if path.name.isdigit())
    steps = [int(step) for step in args.steps.split(",")] if args.steps else chosen(there)
    if missing := sorted(set(steps) - set(there)):
        sys.exit(f"no checkpoint of step {missing}; there are {there}")
    file = args.curve or args.run / "curve.json"
    points = json.loads(file.read_text()) if file.exists() else []
    keys = ("task", "data", "labels_per_class", "repeats", "selection_draws", "c", "options")
    args.data = str(Path(args.data).resolve())
    settings = {key: getattr(args, key) for key in keys}
    if args.curve:  # the default is in the folder of the run
        settings["run"] = str(args.run.resolve())
    if others := [point for point in points if point.get("settings", settings) != settings]:
        sys.exit(f"{file} has points of other settings, {others[0]['settings']}: name another file with --curve")
    for step in steps:
        if all(point["step"] != step for point in points):
            checkpoint = args.run / "checkpoints" / f"{step:08}"
            point = {"step": step, "epochs": epochs(args.run, step), **evaluate(binary, args, checkpoint)}
            points.append({**point, "settings": settings})
            points.sort(key=lambda point: point["step"])
            file.write_text(json.dumps(points, indent=1) + "\n")
    points = [point for point in points if point["step"] in steps]
    print("| steps | epochs | held out % | test % | C |\n|---|---|---|---|---|")
    for point in points:
        test = f"{point['accuracy_percent']:.2f}"
        if point["interval95"] is not None:  # one draw has none
            test += f" ± {point['interval95']:.2f}"
        epoch = "" if point["epochs"] is None else f"{point['epochs']:.1f}"
        print(f"| {point['step']:,} | {epoch} | {point['held_out_percent']:.2f} | {test} | {point['c']:g} |")
    best = max(points, key=lambda point: point["held_out_percent"])
    print(f"\nbest on the held-out images: step {best['step']:,}, test {best['accuracy_percent']:.2f} %")
    if args.figure:
        figure(args.figure, points, args.task)


if __name__ == "__main__":
    main()
