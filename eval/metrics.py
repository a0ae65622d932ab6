"""`dcgan-eval metrics` beside torch-fidelity, pytorch-fid and clean-fid: the same images, the same weights.

Run: cargo build --release
     python3 metrics.py GENERATED REFERENCE OUT [--weights FILE.pth] [--ours target/release] [--repeats 3]
     (Python 3.11 with crates/dcgan-metrics/tests/goldens/requirements.txt)

GENERATED and REFERENCE are folders of PNG images, 1,000 or more each. Without --weights, weights that a formula gives
are used: numbers mean nothing then, but programs must agree. Prints two tables in Markdown: every number of both sides
with its relative difference, and the times of feature extraction, measured alternately.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "crates/dcgan-metrics/tests/goldens"))
import make  # noqa: E402


def images(folder):
    from PIL import Image

    for path in sorted(Path(folder).rglob("*.png")):
        yield np.asarray(Image.open(path).convert("RGB"))


def features(network, state, folder, convention):
    from cleanfid.resize import make_resizer

    filters = {"clean": "bicubic", "studiogan": "bilinear"}
    resize = make_resizer("PIL", False, filters[convention], (299, 299)) if convention in filters else None
    if convention == "pytorch-fid":
        network = make.pytorch_fid_network(state)
    found, batch = [], []

    def flush():
        if batch:
            x = torch.cat(batch)
            found.append(network(x)[0][:, :, 0, 0] if convention == "pytorch-fid" else make.layers(network, x)[0])
            batch.clear()

    for pixels in images(folder):
        x = torch.from_numpy((resize(pixels) if resize else pixels).transpose(2, 0, 1).copy())[None]
        if convention == "pytorch-fid":
            x = x.float() / 255
            batch.append(torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False))
        else:
            x = x.float() if resize else make.resized(x)
            batch.append(x / 127.5 - 1 if convention == "studiogan" else (x - 128) / 128)
        if len(batch) == 8:
            flush()
    flush()
    return torch.cat(found)


# Features of the other programs by convention.
KEPT = {}


def theirs(network, state, args, convention):
    from prdc import compute_prdc
    from scipy import linalg
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    prepared = "torch-fidelity" if convention == "nvlabs" else convention
    if prepared not in KEPT:
        KEPT[prepared] = [features(network, state, folder, prepared) for folder in (args.generated, args.reference)]
    a, b = KEPT[prepared]
    options = dict(kid_subsets=100, kid_subset_size=1000, rng_seed=2020, verbose=False)
    kid = kid_features_to_metric(a.double(), b.double(), **options)
    isc = isc_features_to_metric(a @ network.fc.weight.T)
    neighbours = dict(verbose=False, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False)
    prc = prc_features_to_metric(a.double(), b.double(), **neighbours)
    a, b = a.double().numpy(), b.double().numpy()
    with contextlib.redirect_stdout(sys.stderr):
        prdc = compute_prdc(real_features=b, fake_features=a, nearest_k=5)
    ddof = 0 if convention == "nvlabs" else 1
    sigma_a, sigma_b = (np.cov(x, rowvar=False, ddof=ddof) for x in (a, b))
    # As pytorch-fid and clean-fid compute the root.
    root = linalg.sqrtm(sigma_a @ sigma_b).real
    fid = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sigma_a) + np.trace(sigma_b) - 2 * np.trace(root)
    return {
        "fid": fid,
        "kid": kid["kernel_inception_distance_mean"],
        "kid_std": kid["kernel_inception_distance_std"],
        "inception_score": isc["inception_score_mean"],
        "precision": prc["precision"],
        "recall": prc["recall"],
        "density": float(prdc["density"]),
        "coverage": float(prdc["coverage"]),
    }


def ours(args, weights, convention, cache):
    command = [args.ours / "dcgan-eval", "metrics", args.generated, args.reference, "--inception", weights]
    command += ["--like", convention, "--cache", cache, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def speed(network, args, weights):
    """Seconds of extracting all images of both folders, ours and torch's in batches of 8, alternately."""
    times = {"ours": [], "torch": []}
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as cache:
            times["ours"].append(ours(args, weights, "torch-fidelity", cache)["extraction_seconds"])
        start = time.monotonic()
        for folder in (args.generated, args.reference):
            batch = []
            for pixels in images(folder):
                batch.append(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
                if len(batch) == 8:
                    network(torch.stack(batch))
                    batch = []
            if batch:
                network(torch.stack(batch))
        times["torch"].append(time.monotonic() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--conventions", default="torch-fidelity,pytorch-fid,clean,nvlabs,studiogan")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    args.out.mkdir(parents=True, exist_ok=True)
    network, state = make.torch_fidelity_network(args.out)
    weights = args.weights or args.out / "formula.pth"
    if args.weights:
        state = torch.load(args.weights)
        network.load_state_dict(state)
    else:
        torch.save(state, weights)
    print("| convention | metric | other program | ours | relative difference |\n|---|---|---|---|---|")
    (args.out / "cache").mkdir(exist_ok=True)
    for convention in filter(None, args.conventions.split(",")):
        found = ours(args, weights, convention, args.out / "cache")
        expected = theirs(network, state, args, convention)
        for metric, value in expected.items():
            difference = abs(found[metric] - value) / max(abs(value), 1e-6)  # the spread of KID may be 0
            print(f"| {convention} | {metric} | {value:.8g} | {found[metric]:.8g} | {difference:.1e} |", flush=True)
    if args.repeats:
        times = speed(network, args, weights)
        count = sum(1 for folder in (args.generated, args.reference) for _ in Path(folder).rglob("*.png"))
        print(f"\n| extraction of {count} images | images/s, median |\n|---|---|")
        for name, seconds in times.items():
            print(f"| {name} | {count / statistics.median(seconds):.2f} |")
        ratio = statistics.median(times["torch"]) / statistics.median(times["ours"])
        print(f"\nours is {ratio:.2f} times as fast; torch {torch.__version__}, {torch.get_num_threads()} threads")
    shutil.rmtree(args.out / "cache", ignore_errors=True)


main()
