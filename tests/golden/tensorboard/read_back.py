"""Reads the event files of runs with TensorBoard's reader, and compares them with stats.jsonl and the image grids.

Usage: python3 read_back.py DCGAN_TRAIN        (the binary; see requirements.txt)

The script trains tiny models in a temporary folder: an uninterrupted run with grey images; a run with color images
that is killed before its first checkpoint and after later ones, each time with events after the last checkpoint, and
whose files are truncated within their last record; a run whose samples collapse; and a job of the service, which is
killed with the service. For each run, TensorBoard must read every scalar, image and alarm exactly once, at its step,
and nothing else. Exits with 1 at the first difference.
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

ALL = {"scalars": 0, "images": 0, "tensors": 0}  # 0: no limit
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
project_norm = "per-activation"
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


def wait_for(what, condition):
    """Polls `condition` until it is true, and returns its value."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.001)
    raise SystemExit(f"{what}: timeout after {DEADLINE_S} seconds")


def config(channels=1, learning_rate=1e-3, weight_std=0.1):
    return CONFIG.format(channels=channels, learning_rate=learning_rate, weight_std=weight_std)


def train(binary, arguments):
    done = subprocess.run([binary, *map(str, arguments), "--quiet"], stdout=subprocess.PIPE, check=False)
    require(done.returncode == 0, f"{arguments} ended with {done.returncode}")


def event_files(run):
    return sorted(run.glob("events.out.tfevents.*"))


def read(path, purge=True):
    """The events of a run folder or of one file."""
    accumulator = EventAccumulator(str(path), size_guidance=ALL, purge_orphaned_data=purge)
    return accumulator.Reload()


def points(accumulator):
    """(step, tag) of every event, sorted, with repetitions."""
    kinds = {"scalars": accumulator.Scalars, "images": accumulator.Images, "tensors": accumulator.Tensors}
    tags = accumulator.Tags()
    return sorted((e.step, tag) for kind, events in kinds.items() for tag in tags[kind] for e in events(tag))


def stats(run):
    """The complete lines of stats.jsonl."""
    path = run / "stats.jsonl"
    complete = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in complete.splitlines()]


def last_step(run):
    lines = stats(run)
    return lines[-1]["step"] if lines else 0


def checkpoint(run):
    """The step of the newest checkpoint."""
    return max((int(p.name) for p in run.glob("checkpoints/*") if p.name.isdigit()), default=0)


def check(run):
    """Compares the events of a run with stats.jsonl. Returns the number of event files."""
    events, lines, n_files = read(run), stats(run), len(event_files(run))
    require(events.file_version == 2.0, f"{run}: expected version 2, found {events.file_version}")

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
        "scalars": lambda tag: [(e.step, np.float32(e.value)) for e in events.Scalars(tag)],
        "images": lambda tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)],
        "tensors": lambda tag: [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(tag)],
    }
    tags = events.Tags()
    for kind, by_tag in expected.items():
        require(sorted(tags[kind]) == sorted(by_tag), f"{run}: {kind}: expected {sorted(by_tag)}, found {tags[kind]}")
        for tag, values in by_tag.items():
            found = value_of[kind](tag)
            require(found == values, f"{run}: {tag}: expected {values}, found {found}"[:2000])
    for tag in tags["tensors"]:
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        require(plugin == "text", f"{run}: {tag}: expected the plugin 'text', found {plugin!r}")
    for event in events.Images(SAMPLES):
        image = Image.open(io.BytesIO(event.encoded_image_string))
        image.load()
        require(image.size == (event.width, event.height), f"{run}: image size {image.size} in the event {event}")
    require(expected["scalars"] and expected["images"], f"{run}: no scalars or no images")
    counts = {kind: sum(map(len, by_tag.values())) for kind, by_tag in expected.items()}
    print(f"{run.name}: {n_files} files, {counts} as in stats.jsonl", flush=True)
    return n_files


def kill_behind_checkpoint(binary, run, command, least):
    """Kills the run until it has a checkpoint at step `least` or later (none if `least` is 0) and its newest event file
    contains events after this checkpoint."""
    for _ in range(20):
        seen = last_step(run)
        child = subprocess.Popen([binary, *map(str, command), "--quiet"], stdout=subprocess.DEVNULL)
        far_enough = lambda: checkpoint(run) >= least and last_step(run) > max(seen, checkpoint(run) + 20)
        wait_for("training", far_enough)
        child.kill()  # SIGKILL
        child.wait()
        require(not (run / "result.json").exists(), f"{run}: finished before the kill")
        if least == 0 and checkpoint(run) > 0:
            shutil.rmtree(run)  # too late: try again
        elif points(read(event_files(run)[-1]))[-1][0] > checkpoint(run):
            return
        else:
            command = ["resume", run]
    raise SystemExit(f"{run}: no events after a checkpoint in twenty kills")


def check_truncated(run, scratch):
    """Checks that TensorBoard reads a file that ends within its last record up to that record."""
    whole = event_files(run)[-1].read_bytes()
    starts, at = [], 0
    while at < len(whole):
        starts.append(at)
        at += 8 + 4 + int.from_bytes(whole[at : at + 8], "little") + 4
    if at > len(whole):
        whole = whole[: starts.pop()]  # the run was killed within a record
    cut, last = scratch / event_files(run)[-1].name, starts[-1]

    def read_up_to(end, after=b""):
        cut.write_bytes(whole[:end] + after)
        return points(read(cut))

    expected = read_up_to(last)
    require(expected and expected != read_up_to(len(whole)), f"{run}: the last record is empty")
    for end in [last + 1, last + 8, last + 11, last + 12, last + 13, len(whole) - 5, len(whole) - 4, len(whole) - 1]:
        require(read_up_to(end) == expected, f"{run}: truncated at {end - last} of {len(whole) - last} bytes")
    # A power failure can leave zeros.
    require(read_up_to(last, bytes(100)) == expected, f"{run}: zeros in place of the last record")
    cut.unlink()


def check_killed(binary, root, toml):
    run = root / "killed"
    options = ["--checkpoint-every", 150, "--sample-every", 50, "--log-every", 5, "--steps", 1500, "--seed", 3]
    command = ["run", "--config", toml, "--out", run, *options]
    for least in [0, 150, 450]:
        kill_behind_checkpoint(binary, run, command, least)
        check_truncated(run, root)
        # Simulates a kill within a record.
        newest = event_files(run)[-1]
        newest.write_bytes(newest.read_bytes()[:-7])
        command = ["resume", run]
    train(binary, ["resume", run])
    n_files = check(run)
    require(n_files >= 4, f"{run}: expected at least 4 files after three kills, found {n_files}")
    orphans = len(points(read(run, purge=False))) - len(points(read(run)))
    require(orphans > 0, f"{run}: no events after a checkpoint")
    print(f"{run.name}: {orphans} events of interrupted runs are dropped", flush=True)


def serve(binary, store):
    command = [binary, "serve", "--store", str(store), "--listen", "127.0.0.1:0"]
    with open(store.with_suffix(".log"), "a") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    return server, server.stdout.readline().strip().removeprefix("listening on ")


def request(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data)) as response:
        return json.load(response)


def check_service(binary, root):
    store = root / "service"
    job = {"config": config(), "steps": 600, "checkpoint_every": 50, "sample_every": 10, "log_every": 5}
    server, url = serve(binary, store)
    try:
        name = request(f"{url}/v1/jobs", job)["id"]
        run = store / "runs" / name
        wait_for("the job", lambda: last_step(run) > 60)
        server.kill()
        server.wait()
        server, url = serve(binary, store)
        done = lambda: request(f"{url}/v1/jobs/{name}")["state"] not in ("queued", "running")
        wait_for("the job", done)
        state = request(f"{url}/v1/jobs/{name}")
        require(state["state"] == "done", f"the job: {state}")
    finally:
        server.kill()
        server.wait()
    require(check(run) == 2, f"{run}: expected one event file per start")
    return run


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = str(Path(sys.argv[1]).resolve())
    os.environ.pop("RUST_LOG", None)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns about every event that it drops
    root = Path(tempfile.mkdtemp(prefix="read-back-"))
    try:
        grey, color, constant = (root / name for name in ("grey.toml", "color.toml", "constant.toml"))
        grey.write_text(config())
        color.write_text(config(channels=3))
        # A generator that draws the same grey for every z and does not learn.
        constant.write_text(config(learning_rate=1e-12, weight_std=1e-6))
        options = ["--sample-every", 10, "--log-every", 5, "--checkpoint-every", 9, "--steps", 60]
        train(binary, ["run", "--config", grey, "--out", root / "whole", *options])
        require(check(root / "whole") == 1, "expected one event file in an uninterrupted run")
        check_killed(binary, root, color)
        options = ["--sample-every", 1000, "--log-every", 500, "--checkpoint-every", 1000, "--steps", 2000]
        train(binary, ["run", "--config", constant, "--out", root / "constant", *options])
        check(root / "constant")
        alarms = read(root / "constant").Tags()["tensors"]
        require("alarm/collapse" in alarms, f"expected the alarm of collapsed samples, found {alarms}")
        job = check_service(binary, root)
        # The runs that `tensorboard --logdir` finds.
        runs = sorted(EventMultiplexer().AddRunsFromDirectory(str(root)).Runs())
        expected = sorted(["whole", "killed", "constant", str(job.relative_to(root))])
        require(runs == expected, f"runs: expected {expected}, found {runs}")
    except BaseException:
        print(f"the files are in {root}", file=sys.stderr)
        raise
    shutil.rmtree(root)


main()
