"""Reads the card of a folder of `dcgan-train export --to hub` with huggingface_hub, as the Hub does.

Run: pip install huggingface_hub; python3 metadata.py DCGAN_TRAIN MODEL   (the program, and a model folder)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import ModelCard

LICENSE, DATASETS = "cc-by-sa-3.0", ["mnist", 'a name: "quoted"']
METRICS = {"convention": "clean", "generated_images": 50000, "reference_images": 9, "reference": "digits: test"}


def main():
    program, model = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        figures, out = Path(folder) / "metrics.json", Path(folder) / "out"
        figures.write_text(json.dumps(METRICS | {"fid": 12.5, "kid": 0.00125, "precision": None}))
        options = ["--license", LICENSE, "--results", figures]
        for name in DATASETS:
            options += ["--dataset", name]
        subprocess.run([program, "export", model, "--to", "hub", "--out", out, *options, "--quiet"], check=True)
        data = ModelCard.load(out / "README.md").data
        text = (out / "README.md").read_text()
        config = json.loads((out / "config.json").read_text())
    assert data.license == LICENSE and data.datasets == DATASETS, data
    assert data.library_name == "dcgan-rs" and data.pipeline_tag == "unconditional-image-generation", data
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"fid": 12.5, "kid": 0.00125}, found
    assert all(result.dataset_name == METRICS["reference"] for result in data.eval_results), data
    assert data.eval_results[0].metric_name == "FID (clean, 50000 images against 9)", data.eval_results[0]
    assert config["_class_name"] == "DCGAN"
    assert text.count("## In PyTorch") == 1
    print("the card has", len(found), "metrics")


main()
