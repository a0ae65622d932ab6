"""Three users from their first command to their result: a designer, a researcher, an operator.

    python journeys.py --bin target/release          # needs numpy and Pillow; about five minutes on two cores

Images are drawn here. Every step is a command with what must come out; the script stops at the first that does not.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bin", type=Path, default=Path("target/release"))
parser.add_argument("--keep", action="store_true", help="keep the folder of the outputs")
parser.add_argument("users", nargs="*", choices=[[], "designer", "researcher", "operator"])
args = parser.parse_args()
BIN = args.bin.resolve()
WORK = Path(tempfile.mkdtemp(prefix="dcgan-journeys-"))
random = np.random.RandomState(0)


def photo(side=96):
    """A disc or a square on a plain background, with noise."""
    ground, figure = (tuple(int(v) for v in random.randint(30, 226, 3)) for _ in range(2))
    image = Image.new("RGB", (side, side + random.randint(0, 40)), ground)
    x, y, r = (int(v) for v in (random.randint(30, side - 30), random.randint(30, side - 30), random.randint(12, 28)))
    kind = random.randint(2)
    draw = ImageDraw.Draw(image).ellipse if kind else ImageDraw.Draw(image).rectangle
    draw((x - r, y - r, x + r, y + r), fill=figure)
    noise = random.normal(0, 4, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)), ("square", "disc")[kind]


def step(command, code=0, says=(), env=None, timeout=600):
    """Runs a command and checks its exit code and parts of what it prints."""
    program, *arguments = command
    ran = subprocess.run(
        [BIN / program, *map(str, arguments)], cwd=WORK, env=env, capture_output=True, text=True, timeout=timeout
    )
    text = ran.stdout + ran.stderr
    shown = " ".join(map(str, command))
    missing = [part for part in says if part not in text]
    verdict = "ok" if ran.returncode == code and not missing else "WRONG"
    print(f"{verdict:<6} rc {ran.returncode}  {shown}", flush=True)
    if verdict == "WRONG":
        sys.exit(f"expected rc {code} and {list(says)}, missing {missing}:\n{text[-3000:]}")
    return ran.stdout


def check(holds, what):
    print(f"{'ok' if holds else 'WRONG':<6} {what}", flush=True)
    if not holds:
        sys.exit(1)


def write_photos(folder, count):
    for i in range(count):
        image, kind = photo()
        (folder / kind).mkdir(parents=True, exist_ok=True)
        image.save(folder / kind / f"{i:04d}.jpg", quality=92)


def designer():
    """Own photos, some broken, no options: a model, samples, single files, an animation."""
    write_photos(WORK / "photos", 300)
    (WORK / "photos/disc/broken.jpg").write_bytes((WORK / "photos/disc").glob("*.jpg").__next__().read_bytes()[:900])
    step(["dcgan-data", "inspect", "photos"], 1, ["broken.jpg", "1 of 301 images cannot be read"])
    step(["dcgan-train", "run", "--data", "photos", "--steps", "40"], 2, ["broken.jpg", "--skip-bad"])
    options = ["--steps", "40", "--batch-size", "16", "--sample-every", "20", "--checkpoint-every", "20"]
    says = ["color: preset pytorch64 at 64x64", "finished: 40 steps"]
    step(["dcgan-train", "run", "--data", "photos", "--skip-bad", *options, "--out", "first"], 0, says)
    check((WORK / "first/samples/00000256.png").exists(), "a sample grid after 16 steps")
    step(["dcgan-train", "resume", "first", "--steps", "60"], 0, ["finished: 60 steps"])
    step(["dcgan-train", "sample", "--model", "first", "--out", "grid.jpg"])
    check(Image.open(WORK / "grid.jpg").format == "JPEG", "grid.jpg is a JPEG")
    step(["dcgan-train", "sample", "--model", "first", "--n", "1", "--scale", "4", "--out", "one.png"])
    check(Image.open(WORK / "one.png").size == (256, 256), "one.png has 256x256 pixels")
    step(["dcgan-train", "sample", "--model", "first", "--n", "20", "--each", "single.zip"])
    step(["dcgan-train", "animate", "first", "--out", "training.gif"], 0, ["frames"])
    step(["dcgan-explore", "interpolate", "--model", "first", "--z", "seed:0:1,2,3", "--out", "walk.png"])


def researcher():
    """Labeled images in split folders; seeds; features and a classifier; weights to PyTorch and back."""
    for split, count in (("train", 240), ("test", 80)):
        write_photos(WORK / "labeled" / split, count)
    step(["dcgan-data", "inspect", "labeled", "--test", "--headers"], 0, ["images       80", "disc"])
    options = ["--preset", "pytorch32", "--batch-size", "16", "--steps", "30", "--checkpoint-every", "15"]
    run = ["dcgan-train", "run", "--data", "labeled", *options, "--out", "base"]
    step([*run, "--seeds", "1,2"], 0, ["seed"])
    line = step(["dcgan-train", "compare", "base-s1", "base-s2", "--json", "--out", "curves.png"])
    check(len(json.loads(line)["runs"]) == 2, "compare: two runs as JSON, and nothing else on stdout")
    for split in ("train", "test"):
        features = ["--model", "base-s1", "--data", "labeled", "--split", split, "--out", f"{split}.safetensors"]
        step(["dcgan-eval", "features", *features])
    line = step(["dcgan-eval", "probe", "--train", "train.safetensors", "--test", "test.safetensors", "--json"])
    check(json.loads(line) is not None, f"probe: {line.strip()[:120]}")
    step(["dcgan-train", "export", "base-s1", "--to", "pytorch", "--out", "exported"])
    step(["dcgan-train", "import", "exported", "--out", "back"])
    for model in ("base-s1", "back"):
        step(["dcgan-train", "sample", "--model", model, "--out", f"{model}.png"])
    same = np.array_equal(Image.open(WORK / "base-s1.png"), Image.open(WORK / "back.png"))
    check(same, "the exported model comes back with the same samples")


def request(path, token, body=None, method=None):
    """A request to the service; its status and JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = urllib.request.Request(f"http://127.0.0.1:8431{path}", data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            text = response.read().decode()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(job, token, states, seconds=300):
    for _ in range(seconds * 2):
        found = request(f"/v1/jobs/{job}", token)[1]
        if found["state"] in states:
            return found
        time.sleep(0.5)
    sys.exit(f"job {job} is {found['state']}, expected {states}")


def operator():
    """A scheduler that stops and requeues a run; the service with a token, killed and started again."""
    run = [
        BIN / "dcgan-train",
        "run",
        "--preset",
        "digits",
        "--steps",
        "400",
        "--out",
        "queued",
        "--resume-if-exists",
    ]
    started = subprocess.Popen(run, cwd=WORK, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(4)
    started.send_signal(signal.SIGUSR1)
    started.send_signal(signal.SIGTERM)
    check(started.wait(120) == 130, "SIGUSR1 and SIGTERM: one checkpoint, exit code 130")
    check(any((WORK / "queued/checkpoints").iterdir()), "the checkpoint is there")
    again = ["dcgan-train", *run[1:]]
    step(again, 0, ["finished: 400 steps"])
    step(again, 0, ["is finished at step 400"])
    token = "a1B2-c3D4-e5F6-g7H8-i9J0"
    (WORK / "weak").write_text("123456")
    (WORK / "token").write_text(token)
    (WORK / "token").chmod(0o600)
    serve = ["dcgan-train", "serve", "--store", "store", "--listen", "127.0.0.1:8431", "--token-file"]
    step([*serve, "weak"], 2, ["token"])
    environment = {
        **os.environ,
        "DCGAN_TOKEN_FILE": "token",
        "DCGAN_STORE": "store",
        "DCGAN_LISTEN": "127.0.0.1:8431",
    }

    def start():
        process = subprocess.Popen([BIN / "dcgan-train", "serve"], cwd=WORK, env=environment, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                request("/v1/jobs", token)
                return process
            except OSError:
                time.sleep(0.1)
        sys.exit("the service does not answer")

    service = start()
    check(request("/v1/jobs", "wrong")[0] == 401, "another token: 401")
    body = {"name": "digits at night", "preset": "digits", "steps": 300, "checkpoint_every": 50}
    status, job = request("/v1/jobs", token, body)
    check(status == 202 and job["name"] == "digits at night", "a job with a name is accepted")
    time.sleep(5)
    service.kill()
    service.wait()
    service = start()
    done = wait_for(job["id"], token, ["done", "failed"])
    check(done["state"] == "done", "the job resumes after kill -9 of the service")
    status, _ = request(f"/v1/jobs/{job['id']}/resume", token, {"steps": 350}, "POST")
    done = wait_for(job["id"], token, ["done", "failed"]) if status < 300 else {"state": status}
    check(done["state"] == "done", "a finished job is extended")
    text = request("/metrics", token)[1]
    check("disk" in text, "/metrics has the disk use")
    service.send_signal(signal.SIGTERM)
    check(service.wait(60) == 0, "SIGTERM: exit code 0")


try:
    for user in (designer, researcher, operator):
        if not args.users or user.__name__ in args.users:
            print(f"\n{user.__name__}: {user.__doc__}")
            user()
finally:
    if not args.keep:
        shutil.rmtree(WORK)
    else:
        print(WORK)
