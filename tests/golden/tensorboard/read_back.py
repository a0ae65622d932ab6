"""Reads what runs write for TensorBoard with TensorBoard's own reader, and compares it with stats.jsonl and the sample grids.

Usage: python3 read_back.py DCGAN_TRAIN        (the binary; see requirements.txt)

Tiny runs in a folder of their own: one that is never stopped, grey; one in color that is killed when something lies behind its last
checkpoint, before there is one and after, whose files are cut within their last record; one whose samples collapse; one of the
service, killed with it. Of each, every scalar, image and alarm must be there once, at its step, and nothing else. Ends with 1 at
the first difference.
"""

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from tags import SAMPLES, scalars, text_tag

ALL = {"scalars": 0, "images": 0, "tensors": 0}  # 0: keep every one
DEADLINE_S = 60
CONFIG = """
[model]
name = "tiny"
height = 8
width = 16
channels = {channels}
latent = {{ size = 4, distribution = "uniform" }}

[model.generator]
project_channels = 8
project_norm = "unit"
norm = {{ eps = 1e-5, affine = true }}
blocks = [
    {{ channels = 4, kernel = 4, stride = 2, padding = 1 }},
    {{ channels = {channels}, kernel = 5, stride = 2, padding = 2, output_padding = 1 }},
]
output = "tanh"

[model.discriminator]
negative_slope = 0.2
norm = {{ eps = 1e-5, affine = true }}
blocks = [
    {{ channels = 4, kernel = 4, stride = 2, padding = 1 }},
    {{ channels = 8, kernel = 3, stride = 2, padding = 1 }},
]

[training]
batch_size = 16
steps = 600
order = "both"
learning_rate = {learning_rate}
learning_rate_decay = "none"
beta1 = 0.5
beta2 = 0.999
adam_eps = 1e-8
weight_decay = 0.0
label_smoothing = 0.0
ema = 0.0
weight_std = {weight_std}
norm_weight_std = 0.02
"""


def require(condition, message):
    if not condition:
        raise SystemExit(message)


def until(what, holds):
    """Looks until something holds, and gives it back."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.001)
    raise SystemExit(f"{what}: not within {DEADLINE_S} seconds")


def config(channels=1, learning_rate=1e-3, weight_std=0.1):
    return CONFIG.format(channels=channels, learning_rate=learning_rate, weight_std=weight_std)


def train(binary, arguments):
    done = subprocess.run([binary, *map(str, arguments), "--quiet"], stdout=subprocess.PIPE, check=False)
    require(done.returncode == 0, f"{arguments} ended with {done.returncode}")


def event_files(run):
    return sorted(run.glob("events.out.tfevents.*"))


def read(path, purge=True):
    """All of a run folder, or of one file."""
    accumulator = EventAccumulator(str(path), size_guidance=ALL, purge_orphaned_data=purge)
    return accumulator.Reload()


def points(accumulator):
    """Steps of everything that was read, with what it is: sorted, each as often as it is there."""
    kinds = {"scalars": accumulator.Scalars, "images": accumulator.Images, "tensors": accumulator.Tensors}
    tags = accumulator.Tags()
    return sorted((e.step, tag) for kind, events in kinds.items() for tag in tags[kind] for e in events(tag))


def stats(run):
    """Lines of stats.jsonl; one that is being written is left out."""
    path = run / "stats.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def last_step(run):
    lines = stats(run)
    return lines[-1]["step"] if lines else 0


def checkpoint(run):
    """The step of the newest one."""
    return max((int(p.name) for p in run.glob("checkpoints/*") if p.name.isdigit()), default=0)


def check(run):
    """The run is what stats.jsonl says. Gives back how many event files it has."""
    found, lines, n_files = read(run), stats(run), len(event_files(run))
    require(found.file_version == 2.0, f"{run}: version {found.file_version}")

    expected = {"scalars": {}, "images": {}, "tensors": {}}
    for line in lines:
        for tag, value in scalars(line):
            expected["scalars"].setdefault(tag, []).append((line["step"], np.float32(value)))
        if line["event"] == "sample":
            name = f"{line['images']:08}.png"
            expected["images"].setdefault(SAMPLES, []).append((line["step"], (run / "samples" / name).read_bytes()))
        if line["event"] == "alarm":
            expected["tensors"].setdefault(text_tag(line), []).append((line["step"], line["message"]))
    value_of = {
        "scalars": lambda tag: [(e.step, np.float32(e.value)) for e in found.Scalars(tag)],
        "images": lambda tag: [(e.step, e.encoded_image_string) for e in found.Images(tag)],
        "tensors": lambda tag: [(e.step, e.tensor_proto.string_val[0].decode()) for e in found.Tensors(tag)],
    }
    tags = found.Tags()
    for kind, by_tag in expected.items():
        require(sorted(tags[kind]) == sorted(by_tag), f"{run}: {kind} {tags[kind]}, expected {sorted(by_tag)}")
        for tag, values in by_tag.items():
            require(value_of[kind](tag) == values, f"{run}: {tag} differs: {value_of[kind](tag)} {values}"[:2000])
    for tag in tags["tensors"]:
        plugin = found.SummaryMetadata(tag).plugin_data.plugin_name
        require(plugin == "text", f"{run}: {tag} is of the plugin {plugin!r}")
    for event in found.Images(SAMPLES):
        image = Image.open(io.BytesIO(event.encoded_image_string))
        image.load()
        require(image.size == (event.width, event.height), f"{run}: {image.size} is said to be {event}")
    require(expected["scalars"] and expected["images"], f"{run}: nothing was compared")
    counts = {kind: sum(map(len, by_tag.values())) for kind, by_tag in expected.items()}
    print(f"{run.name}: {n_files} files, {counts} as in stats.jsonl", flush=True)
    return n_files


def kill_behind_checkpoint(binary, run, command, least):
    """Kills the run until it has a checkpoint of a step of at least `least`, or none for 0, and its newest event file holds something
    that the checkpoint has not seen."""
    for _ in range(20):
        seen = last_step(run)
        child = subprocess.Popen([binary, *map(str, command), "--quiet"], stdout=subprocess.DEVNULL)
        enough = lambda: checkpoint(run) >= least and last_step(run) > max(seen, checkpoint(run) + 20)
        until("training", enough)
        child.kill()  # SIGKILL
        child.wait()
        require(not (run / "result.json").exists(), f"{run} ended before it was killed")
        if least == 0 and checkpoint(run) > 0:
            shutil.rmtree(run)  # too late: once more
        elif points(read(event_files(run)[-1]))[-1][0] > checkpoint(run):
            return
        else:
            command = ["resume", run]
    raise SystemExit(f"{run}: twenty kills, each on a checkpoint")


def check_cuts(run, scratch):
    """A file that ends within its last record is read up to that."""
    whole = event_files(run)[-1].read_bytes()
    starts, at = [], 0
    while at < len(whole):
        starts.append(at)
        at += 8 + 4 + int.from_bytes(whole[at : at + 8], "little") + 4
    if at > len(whole):
        whole = whole[: starts.pop()]  # the kill came within a record
    cut, last = scratch / event_files(run)[-1].name, starts[-1]

    def read_up_to(end, after=b""):
        cut.write_bytes(whole[:end] + after)
        return points(read(cut))

    expected = read_up_to(last)
    require(expected and expected != read_up_to(len(whole)), f"{run}: the last record holds nothing")
    for end in [last + 1, last + 8, last + 11, last + 12, last + 13, len(whole) - 5, len(whole) - 4, len(whole) - 1]:
        require(read_up_to(end) == expected, f"{run}: cut at {end - last} of {len(whole) - last} bytes")
    # What a power cut may leave.
    require(read_up_to(last, bytes(100)) == expected, f"{run}: zeros in place of the last record")
    cut.unlink()


def check_killed(binary, root, toml):
    run = root / "killed"
    options = ["--checkpoint-every", 150, "--sample-every", 50, "--log-every", 5, "--steps", 1500, "--seed", 3]
    command = ["run", "--config", toml, "--out", run, *options]
    for least in [0, 150, 450]:
        kill_behind_checkpoint(binary, run, command, least)
        check_cuts(run, root)
        # As if the kill had come within a record.
        newest = event_files(run)[-1]
        newest.write_bytes(newest.read_bytes()[:-7])
        command = ["resume", run]
    train(binary, ["resume", run])
    n_files = check(run)
    require(n_files >= 4, f"{run}: three kills left {n_files} files")
    orphans = len(points(read(run, purge=False))) - len(points(read(run)))
    require(orphans > 0, f"{run}: nothing was left behind a checkpoint")
    print(f"{run.name}: {orphans} points of interrupted runs are dropped", flush=True)


def serve(binary, store):
    command = [binary, "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    with open(store.with_suffix(".log"), "a") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    return server, server.stdout.readline().strip().removeprefix("listening on ")


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data)) as answer:
        return json.load(answer)


def check_service(binary, root):
    store = root / "service"
    job = {"config": config(), "steps": 600, "checkpoint_every": 50, "sample_every": 10, "log_every": 5}
    server, url = serve(binary, store)
    try:
        name = ask(f"{url}/v1/jobs", job)["id"]
        run = store / "runs" / name
        until("the job", lambda: last_step(run) > 60)
        server.kill()
        server.wait()
        server, url = serve(binary, store)
        done = lambda: ask(f"{url}/v1/jobs/{name}")["state"] not in ("queued", "running")
        until("the job", done)
        state = ask(f"{url}/v1/jobs/{name}")
        require(state["state"] == "done", f"the job: {state}")
    finally:
        server.kill()
        server.wait()
    require(check(run) == 2, f"{run}: a file for each start expected")
    return run


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = str(Path(sys.argv[1]).resolve())
    os.environ.pop("RUST_LOG", None)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of everything that it drops
    root = Path(tempfile.mkdtemp(prefix="read-back-"))
    try:
        grey, color, still = (root / name for name in ("grey.toml", "color.toml", "still.toml"))
        grey.write_text(config())
        color.write_text(config(channels=3))
        # A generator that draws one grey for every z and learns nothing.
        still.write_text(config(learning_rate=1e-12, weight_std=1e-6))
        options = ["--sample-every", 10, "--log-every", 5, "--checkpoint-every", 9, "--steps", 60]
        train(binary, ["run", "--config", grey, "--out", root / "whole", *options])
        require(check(root / "whole") == 1, "a run that is never stopped has one file")
        check_killed(binary, root, color)
        options = ["--sample-every", 1000, "--log-every", 500, "--checkpoint-every", 1000, "--steps", 2000]
        train(binary, ["run", "--config", still, "--out", root / "still", *options])
        check(root / "still")
        alarms = read(root / "still").Tags()["tensors"]
        require("alarm/collapse" in alarms, f"alarms of samples that are all alike: {alarms}")
        job = check_service(binary, root)
        # As `tensorboard --logdir` finds them.
        runs = sorted(EventMultiplexer().AddRunsFromDirectory(str(root)).Runs())
        expected = sorted(["whole", "killed", "still", str(job.relative_to(root))])
        require(runs == expected, f"runs found: {runs}, expected {expected}")
    except BaseException:
        print(f"what was written is in {root}", file=sys.stderr)
        raise
    shutil.rmtree(root)


main()
