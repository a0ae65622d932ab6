"""Shared by the checks of the training service: server process, HTTP requests, tiny jobs, tables."""

import http.client
import json
import select
import subprocess
import time
from pathlib import Path

BINARY = Path(__file__).parents[2] / "target/release/dcgan-train"

# Networks so small that a step takes one or two milliseconds, as in crates/dcgan-train/tests/it/support.rs.
TINY = """
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
steps = 120
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


class Server:
    """A service process, on a free port unless an address is given."""

    def __init__(self, binary, store, *arguments, prefix=(), address=("127.0.0.1", 0), wait=True):
        listen = f"{address[0]}:{address[1]}"
        command = [*prefix, str(binary), "serve", "--store", str(store), "--listen", listen, *map(str, arguments)]
        self.address, self.store = address, Path(store)
        self.log = open(f"{store}.log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL)
        if wait:
            self.wait_until_listening()

    def wait_until_listening(self):
        line = self.process.stdout.readline().decode().strip()
        if not line.startswith("listening on http://"):
            raise RuntimeError(f"the service did not start: {line!r}, see {self.store}.log")
        host, port = line.removeprefix("listening on http://").rsplit(":", 1)
        self.address = (host, int(port))

    def is_listening(self):
        """Whether the service has printed its address."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    @property
    def pid(self):
        return self.process.pid

    def request(self, method, path, body=None, headers=(), timeout=60):
        """Status and body of the response."""
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, path, text, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, method, path, body=None):
        status, text = self.request(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {text.decode()}")
        return json.loads(text) if text else None

    def submit(self, options):
        return self.json("POST", "/v1/jobs", options)["id"]

    def job(self, id):
        return self.json("GET", f"/v1/jobs/{id}")

    def wait(self, id, description, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while True:
            job = self.job(id)
            if condition(job):
                return job
            if time.monotonic() > deadline:
                raise RuntimeError(f"{id} is not {description} after {seconds} s: {job}")
            time.sleep(0.01)

    def wait_state(self, id, state, seconds=120):
        return self.wait(id, state, lambda job: job["state"] == state, seconds)

    def run_folder(self, id):
        return self.store / "runs" / id

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.close()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.close()

    def close(self):
        code = self.process.wait()
        self.process.stdout.close()
        self.log.close()
        return code


def tiny(steps=23, **more):
    """Options of a job with the tiny networks: a few checkpoints and samples."""
    return {
        "config": TINY,
        "steps": steps,
        "checkpoint_every": 9,
        "sample_every": 10,
        "log_every": 5,
        "seed": 3,
        "keep": 2,
    } | more


def reference_run(binary, folder, options=None):
    """The run folder of `dcgan-train run` with the options."""
    options = options or tiny()
    config, out = folder / "tiny.toml", folder / f"reference-{len(list(folder.iterdir()))}"
    config.write_text(options["config"])
    flags = [
        flag
        for name, value in options.items()
        if name != "config"
        for flag in (f"--{name.replace('_', '-')}", str(value))
    ]
    subprocess.run(
        [binary, "run", "--quiet", "--config", config, "--out", out, *flags], check=True, capture_output=True
    )
    return out


def files(folder):
    """The bytes of every file below a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def compare(reference, run):
    """Differences of a run folder from a reference run: checkpoints, samples, result, link to the best checkpoint."""
    faults = []
    for part in ("checkpoints", "samples"):
        expected, found = files(reference / part), files(run / part)
        if expected.keys() != found.keys() or not expected:
            faults.append(f"{part} contains {sorted(found)}, expected {sorted(expected)}")
        faults += [f"{part}/{name} differs" for name in expected if name in found and expected[name] != found[name]]
    for name in ("result.json", "reals.png"):
        if not (run / name).exists() or (reference / name).read_bytes() != (run / name).read_bytes():
            faults.append(f"{name} differs")
    if not (run / "best").is_symlink() or (reference / "best").readlink() != (run / "best").readlink():
        faults.append("best differs")
    unfinished = [str(path.relative_to(run)) for path in run.rglob(".tmp-*")]
    return faults + [f"temporary file {name} was not removed" for name in unfinished]


def check_steps(run, last=23, every=5):
    """Faults of stats.jsonl: each logged step must appear once and in order, and each line must be complete."""
    text = (run / "stats.jsonl").read_text()
    steps = [event["step"] for event in map(json.loads, text.splitlines()) if event["event"] == "step"]
    expected = [step for step in range(1, last + 1) if step % every == 0 or step == last]
    return (
        [] if steps == expected and text.endswith("\n") else [f"stats.jsonl has the steps {steps}, expected {expected}"]
    )


def table(head, rows):
    """Prints a table in Markdown."""
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    print(flush=True)


def stats_lines(run):
    """The complete lines of stats.jsonl as clients get them: without the run folder."""
    text = (Path(run) / "stats.jsonl").read_text()
    folder = f"{Path(run).resolve()}/"
    return [line.replace(folder, "") for line in text[: text.rfind("\n") + 1].splitlines()]
