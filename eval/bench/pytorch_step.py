"""Times a training step, feature vectors or samples in PyTorch, for comparison with `dcgan-train bench`.

Run: python3 pytorch_step.py [--preset pytorch64] [--work step|features|samples] [--batch-size 128] [--threads 2]
                             [--steps 7] [--images 10000] [--device cpu] [--bf16] [--channels-last] [--compile]
                             [--skip-d-grads] [--fused-adam]
     (torch; Python 3.11)

The networks are those of models/PRESET.toml, without biases, on random images. The last line of output is JSON.

step      D on real, D on fake.detach(), one Adam step; then D on the same fake, backward through D and G, Adam step of
          G. This is the order of `dcgan-train bench` for every preset; images_per_s is the batch size divided by the
          median step time. pytorch/examples also computes the gradients of D's weights in the update of G and discards
          them; --skip-d-grads skips them, which is the stricter comparison. --fused-adam uses Adam's fused kernel on
          the CPU too, where it is not PyTorch's default.
features  D in evaluation mode: every block after LeakyReLU, max-pooled to 4x4, flattened in channel-major order,
          concatenated.
samples   G in evaluation mode; the time includes drawing z.

Features and samples are timed over all of --images, after one batch of warm-up. Every output batch is discarded
immediately, and every input batch contains the same images.
"""

import argparse
import contextlib
import json
import math
import resource
import statistics
import time
import tomllib
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

MODELS = Path(__file__).resolve().parents[2] / "models"
GRID = 4


class PerActivationNormReLU(nn.Module):
    """Per-activation batch norm (one mean and variance per channel, row and column), then ReLU, in memory order."""

    def __init__(self, activations, channels_last, **norm):
        super().__init__()
        self.norm = nn.BatchNorm1d(activations, **norm)
        self.channels_last = channels_last

    def forward(self, x):
        x = x.permute(0, 2, 3, 1) if self.channels_last else x
        y = F.relu_(self.norm(x.flatten(1))).view_as(x)
        return y.permute(0, 3, 1, 2) if self.channels_last else y


def generator(model, channels_last):
    config = model["generator"]
    blocks, norm = config["blocks"], config["norm"]
    stride = math.prod(block["stride"] for block in blocks)
    map_size = (model["height"] // stride, model["width"] // stride)
    channels = config["project_channels"]
    layers = [nn.ConvTranspose2d(model["latent"]["size"], channels, map_size, bias=False)]
    if config["project_norm"] == "per-activation":
        layers.append(PerActivationNormReLU(channels * math.prod(map_size), channels_last, **norm))
    else:
        layers += [nn.BatchNorm2d(channels, **norm), nn.ReLU(inplace=True)]
    for i, block in enumerate(blocks):
        sizes = (block["kernel"], block["stride"], block["padding"], block.get("output_padding", 0))
        layers.append(nn.ConvTranspose2d(channels, block["channels"], *sizes, bias=False))
        channels = block["channels"]
        if i + 1 < len(blocks):
            layers += [nn.BatchNorm2d(channels, **norm), nn.ReLU(inplace=True)]
    layers.append({"tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[config["output"]]())
    return nn.Sequential(*layers)


class Discriminator(nn.Module):
    def __init__(self, model):
        super().__init__()
        config = model["discriminator"]
        channels, height, width = model["channels"], model["height"], model["width"]
        self.blocks = nn.ModuleList()
        for i, block in enumerate(config["blocks"]):
            kernel, stride, padding = block["kernel"], block["stride"], block["padding"]
            layers = [nn.Conv2d(channels, block["channels"], kernel, stride, padding, bias=False)]
            channels = block["channels"]
            if i > 0:
                layers.append(nn.BatchNorm2d(channels, **config["norm"]))
            layers.append(nn.LeakyReLU(config["negative_slope"], inplace=True))
            self.blocks.append(nn.Sequential(*layers))
            height, width = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
        self.head = nn.Conv2d(channels, 1, (height, width), bias=False)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x).flatten()

    def features(self, x):
        pooled = []
        for block in self.blocks:
            x = block(x)
            pooled.append(pool(x).flatten(1))
        return torch.cat(pooled, 1)


def pool(x):
    """Max-pools to 4x4. Both functions agree if 4 divides height and width, and max_pool2d is faster."""
    height, width = x.shape[2:]
    if height % GRID or width % GRID:
        return F.adaptive_max_pool2d(x, GRID)
    return x if (height, width) == (GRID, GRID) else F.max_pool2d(x, (height // GRID, width // GRID))


def initialize(network, training):
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0, training["weight_std"])
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            nn.init.normal_(module.weight, 1, training["norm_weight_std"])


class Bench:
    """Both networks and the inputs of one configuration."""

    def __init__(self, options, config):
        self.options, self.model, training = options, config["model"], config["training"]
        self.on_cpu = torch.device(options.device).type == "cpu"
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.g, self.d = generator(self.model, options.channels_last), Discriminator(self.model)
        for network in (self.g, self.d):
            initialize(network, training)
            network.to(options.device, memory_format=layout).train(options.work == "step")
        if not self.on_cpu:
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        compiled = (lambda f: torch.compile(f, mode="reduce-overhead")) if options.compile else (lambda f: f)
        self.generate, self.discriminate = compiled(self.g), compiled(self.d)
        self.extract = compiled(self.d.features)
        self.adam_g, self.adam_d = (
            torch.optim.Adam(
                network.parameters(),
                lr=training["learning_rate"],
                betas=(training["beta1"], training["beta2"]),
                eps=training["adam_eps"],
                weight_decay=training["weight_decay"],
                fused=True if options.fused_adam or not self.on_cpu else None,
            )
            for network in (self.g, self.d)
        )
        shape = (options.batch_size, self.model["channels"], self.model["height"], self.model["width"])
        self.x = (torch.rand(shape, device=options.device) * 2 - 1).contiguous(memory_format=layout)
        self.ones = torch.ones(options.batch_size, device=options.device)
        self.zeros = torch.zeros(options.batch_size, device=options.device)

    def latent(self, n):
        shape, device = (n, self.model["latent"]["size"], 1, 1), self.options.device
        if self.model["latent"]["distribution"] == "normal":
            return torch.randn(shape, device=device)
        return torch.rand(shape, device=device) * 2 - 1

    def amp(self):
        if self.options.bf16:
            return torch.autocast(torch.device(self.options.device).type, torch.bfloat16)
        return contextlib.nullcontext()

    def sync(self):
        if not self.on_cpu:
            torch.cuda.synchronize()

    def step(self):
        loss = F.binary_cross_entropy_with_logits
        self.d.zero_grad()
        with self.amp():
            logits = self.discriminate(self.x)
        loss(logits.float(), self.ones).backward()
        z = self.latent(self.options.batch_size)
        with self.amp():
            fake = self.generate(z)
            logits = self.discriminate(fake.detach())
        loss(logits.float(), self.zeros).backward()
        self.adam_d.step()
        self.g.zero_grad()
        self.d.requires_grad_(not self.options.skip_d_grads)
        with self.amp():
            logits = self.discriminate(fake)
        loss(logits.float(), self.ones).backward()
        self.adam_g.step()
        self.d.requires_grad_(True)

    def batch(self, n):
        """Feature vectors of n images, or n samples."""
        with self.amp():
            return self.extract(self.x[:n]) if self.options.work == "features" else self.generate(self.latent(n))

    def time_steps(self):
        """Median time of a step in seconds. On a GPU, several steps are timed at once, as `dcgan-train bench` does."""
        for _ in range(3 if self.on_cpu else 30):
            self.step()
        window = 1 if self.on_cpu else 32
        times = []
        for _ in range(math.ceil(self.options.steps / window)):
            self.sync()
            start = time.perf_counter()
            for _ in range(window):
                self.step()
            self.sync()
            times.append((time.perf_counter() - start) / window)
        return statistics.median_high(times)

    @torch.inference_mode()
    def time_images(self):
        """Time for all images in seconds."""
        size, images = self.options.batch_size, self.options.images
        self.batch(size)
        self.sync()
        start = time.perf_counter()
        for first in range(0, images, size):
            self.batch(min(size, images - first))
        self.sync()
        return time.perf_counter() - start


def main():
    presets = sorted(path.stem for path in MODELS.glob("*.toml"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", choices=presets, default="pytorch64")
    parser.add_argument("--work", choices=["step", "features", "samples"], default="step")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--skip-d-grads", action="store_true")
    parser.add_argument("--fused-adam", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    config = tomllib.loads((MODELS / f"{options.preset}.toml").read_text())
    bench = Bench(options, config)
    if options.work == "step":
        seconds = bench.time_steps()
        speed = {"images_per_s": options.batch_size / seconds, "step_ms_median": 1e3 * seconds}
    else:
        speed = {"images_per_s": options.images / bench.time_images(), "images": options.images}
    result = speed | {
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "preset": options.preset,
        "image_size": config["model"]["height"],
        "batch_size": options.batch_size,
        "dtype": "bf16" if options.bf16 else "f32",
        "threads": options.threads,
        "channels_last": options.channels_last,
        "work": options.work,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
