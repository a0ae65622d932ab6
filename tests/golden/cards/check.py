"""Runs the Python code of model cards in PyTorch, and compares its images with those of this program.

Run: cargo run -p dcgan-features --example onnx_cases -- FOLDER
     python3 check.py FOLDER [MODEL ...]   (torch, safetensors)

FOLDER has NAME.model and NAME.safetensors with `z`, `label` and `image`; images must be equal within 1e-5 of the
largest value. For every other MODEL, a model folder, the code runs and its images have the shape of its configuration.
"""

import contextlib
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

BOUND = 1e-5


def run(model):
    """The variables of the code in the card of `model`."""
    [code] = re.findall(r"^```python\n(.*?)^```$", (model / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    variables = {}
    with contextlib.chdir(model):
        exec(compile(code, str(model / "README.md"), "exec"), variables)
    return variables


def check_shape(variables):
    config, images = variables["config"], variables["images"]
    assert images.shape == (64, config["channels"], config["height"], config["width"]), images.shape
    assert images.std() > 0.01, images.std()


def main():
    torch.set_grad_enabled(False)
    folder, models = Path(sys.argv[1]), [Path(model) for model in sys.argv[2:]]
    cases = sorted(folder.glob("*.model"))
    assert cases, "no cases"
    failed = False
    print("| networks | image |\n|---|---|")
    for case in cases:
        variables = run(case)
        check_shape(variables)
        expected = load_file(folder / f"{case.name.removesuffix('.model')}.safetensors")
        classes = variables["config"].get("classes", 0)
        y = torch.eye(classes)[expected["label"].long()] if classes else None
        images = variables["draw"](expected["z"], y).permute(0, 2, 3, 1)
        difference = float((images - expected["image"]).abs().max() / expected["image"].abs().max())
        failed |= difference > BOUND
        print(f"| {case.name.removesuffix('.model')} | {difference:.1e} |", flush=True)
    for model in models:
        check_shape(run(model))
        print(f"| {model} | runs |")
    sys.exit(f"more than {BOUND}" if failed else 0)


main()
