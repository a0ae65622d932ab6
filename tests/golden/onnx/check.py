"""Checks the ONNX files of `cargo run -p dcgan-features --example onnx_cases -- FOLDER` with onnx.checker and
onnxruntime.

Run: pip install -r requirements.txt; python3 check.py FOLDER

Every output must equal that of this program within 1e-5 of the largest value, bytes except where rounding differs by 1.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file

BOUND = 1e-5


def run(path, inputs):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["license"] == "CC0-1.0" and metadata["z"] and metadata["image"], metadata
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    # Any batch size: one by one as well.
    whole = session.run(None, {name: inputs[name] for name in names})
    ones = [session.run(None, {name: inputs[name][i : i + 1] for name in names}) for i in range(len(inputs["z"]))]
    for i, output in enumerate(whole):
        alone = np.concatenate([one[i] for one in ones])
        assert np.abs(alone.astype(float) - output).max() <= 1e-4 * max(np.abs(output).max(), 1), path
    return dict(zip((value.name for value in session.get_outputs()), whole))


def difference(what, found, expected):
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-9))


def main():
    folder = Path(sys.argv[1])
    cases = sorted(folder.glob("*.safetensors"))
    assert cases, "no cases"
    failed = False
    print("| networks | image | logit | features | label vectors | bytes that differ |\n|---|---|---|---|---|---|")
    for case in cases:
        expected = load_file(case)
        name = case.name.removesuffix(".safetensors")
        inputs = {"z": expected["z"], "label": expected["label"].astype(np.int64)}
        image = run(folder / f"{name}.G.onnx", inputs)["image"]
        pixels = run(folder / f"{name}.bytes.onnx", inputs)["image"]
        assert pixels.dtype == np.uint8
        steps = np.abs(pixels.astype(int) - expected["bytes"].astype(int))
        inputs["image"] = np.ascontiguousarray(expected["image"].transpose(0, 3, 1, 2))
        outputs = run(folder / f"{name}.D.onnx", inputs)
        found = {"image": difference(name, image.transpose(0, 2, 3, 1), expected["image"])}
        found["logit"] = difference(name, outputs["logit"], expected["logit"])
        if expected["features"].size:
            inputs["image"] = np.ascontiguousarray(expected["seen"].transpose(0, 3, 1, 2))
            features = run(folder / f"{name}.D.onnx", inputs)["features"]
            found["features"] = difference(name, features.reshape(-1), expected["features"])
        if "labels" in expected:
            inputs["labels"] = expected["labels"]
            image = run(folder / f"{name}.vectors.onnx", inputs)["image"]
            found["labels"] = difference(name, image.transpose(0, 2, 3, 1), expected["image_of_labels"])
        share = float((steps > 0).mean())
        failed |= max(found.values()) > BOUND or steps.max() > 1 or share > 1e-3
        cells = [f"{found[key]:.1e}" if key in found else "" for key in ("image", "logit", "features", "labels")]
        print(f"| {name} | {' | '.join(cells)} | {100 * share:.3f} % |", flush=True)
    sys.exit(f"more than {BOUND}" if failed else 0)


main()
