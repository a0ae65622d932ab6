"""Features, logits and metrics of torch-fidelity, pytorch-fid, clean-fid and prdc, of images and weights by formula.

Run: pip install -r requirements.txt; python3 make.py
     (Python 3.11; writes expected.safetensors and expected.json here)

Nothing large is stored: every tensor and image is drawn from splitmix64, which main.rs repeats.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = Path(__file__).parent
MASK = (1 << 64) - 1
IMAGES = [(32, 32), (64, 48), (512, 400)]


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def uniform(name, count):
    """f32 in [-1/2, 1/2)."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)).astype(np.float32)


def image(height, width):
    noise = uniform(f"image {height}x{width}", height * width * 3).reshape(height, width, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    # Edges and slopes, which resizing treats differently, and noise.
    base = 128 + 80 * np.sign(np.sin(x / 7.0) * np.cos(y / 5.0))[..., None] + 60 * (noise.astype(np.float64))
    return np.clip(np.floor(base), 0, 255).astype(np.uint8)


def weights(state):
    made = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(0)
            continue
        u = torch.from_numpy(uniform(name, tensor.numel()).reshape(tensor.shape))
        if name.endswith("conv.weight"):
            fan_in = tensor[0].numel()
            u = u * np.float32(np.sqrt(24.0 / fan_in))
        elif name.endswith("running_var"):
            u = u + 1
        elif name.endswith("bn.weight"):
            u = u / 2 + 1
        elif name.endswith("fc.weight"):
            u = u / 4
        else:
            u = u / 2
        made[name] = u
    return made


def torch_fidelity_network(folder):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The shapes come from the class, whose constructor loads a file.
    original = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
    path = folder / "empty.pth"
    torch.save({}, path)
    names = ["2048", "logits_unbiased"]
    network = FeatureExtractorInceptionV3("inception", names, feature_extractor_weights_path=str(path))
    FeatureExtractorInceptionV3.load_state_dict = original
    state = weights(network.state_dict())
    network.load_state_dict(state)
    return network, state


def layers(network, x):
    """The network after its resizing."""
    for name, module in network.named_children():
        if name not in ("fc", "AvgPool"):
            x = module(x)
    features = torch.flatten(network.AvgPool(x), 1)
    return features, features @ network.fc.weight.T


def pytorch_fid_network(state):
    import pytorch_fid.inception as inception

    inception.load_state_dict_from_url = lambda *args, **kwargs: state
    return inception.InceptionV3([3]).eval()


def pytorch_fid_features(state, pixels):
    network = pytorch_fid_network(state)
    x = torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1))[None] / 255
    return network(x)[0][:, :, 0, 0]


def expected_features(state, network):
    from cleanfid.resize import make_resizer

    tensors = {}
    for height, width in IMAGES:
        pixels = image(height, width)
        size = f"{height}x{width}"
        batch = torch.from_numpy(pixels.transpose(2, 0, 1))[None]
        features, logits = network(batch)
        check, _ = layers(network, (resized(batch) - 128) / 128)
        assert torch.equal(check, features)
        clean = torch.from_numpy(make_resizer("PIL", False, "bicubic", (299, 299))(pixels).transpose(2, 0, 1))[None]
        studio = torch.from_numpy(make_resizer("PIL", False, "bilinear", (299, 299))(pixels).transpose(2, 0, 1))[None]
        found = {
            "torch-fidelity": ((resized(batch) - 128) / 128, features, logits),
            "clean": ((clean - 128) / 128, *layers(network, (clean - 128) / 128)),
            "studiogan": (studio / 127.5 - 1, *layers(network, studio / 127.5 - 1)),
        }
        x = torch.nn.functional.interpolate(batch.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
        found["pytorch-fid"] = (2 * x - 1, pytorch_fid_features(state, pixels), None)
        for convention, (inputs, features, logits) in found.items():
            key = f"{convention}/{size}"
            # A value in 997 of the input, in the order (h, w, c).
            tensors[f"{key}/input"] = inputs[0].permute(1, 2, 0).reshape(-1)[::997].numpy().astype(np.float32)
            tensors[f"{key}/features"] = features[0].numpy().astype(np.float32)
            if logits is not None:
                tensors[f"{key}/logits"] = logits[0].numpy().astype(np.float32)
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def resized(batch):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    return interpolate_bilinear_2d_like_tensorflow1x(batch.float(), size=(299, 299), align_corners=False)


def expected_metrics():
    from prdc import compute_prdc
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    d, n = 48, 700
    a = uniform("features a", n * d).reshape(n, d) * 2
    b = uniform("features b", n * d).reshape(n, d) * 2
    b = (b * np.linspace(0.5, 1.2, d).astype(np.float32) + np.float32(0.1)).astype(np.float32)
    logits = uniform("logits", 500 * 20).reshape(500, 20) * 8
    t = torch.from_numpy
    of_a, of_b = (fid_features_to_statistics(t(x).double()) for x in (a, b))
    fid = fid_statistics_to_metric(of_a, of_b, False)
    options = dict(kid_subsets=20, kid_subset_size=100, rng_seed=2020, verbose=False)
    kid = kid_features_to_metric(t(a).double(), t(b).double(), **options)
    isc = isc_features_to_metric(t(logits))
    neighbours = dict(verbose=False, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False)
    prc = prc_features_to_metric(t(a).double(), t(b).double(), **neighbours)
    prdc = compute_prdc(real_features=b.astype(np.float64), fake_features=a.astype(np.float64), nearest_k=5)
    return {
        "fid": fid["frechet_inception_distance"],
        "kid": [kid["kernel_inception_distance_mean"], kid["kernel_inception_distance_std"]],
        "inception_score": [isc["inception_score_mean"], isc["inception_score_std"]],
        "precision": prc["precision"],
        "recall": prc["recall"],
        "density": float(prdc["density"]),
        "coverage": float(prdc["coverage"]),
        "sum_of_a": float(a.astype(np.float64).sum()),
    }


def main():
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        network, state = torch_fidelity_network(Path(folder))
    save_file(expected_features(state, network), HERE / "expected.safetensors")
    (HERE / "expected.json").write_text(json.dumps(expected_metrics(), indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--weights":
        # Writes the weights as a file of torch-fidelity, to try the commands: make.py --weights FILE
        with tempfile.TemporaryDirectory() as folder:
            torch.save(torch_fidelity_network(Path(folder))[1], sys.argv[2])
    else:
        main()
