import json, torch
from safetensors.torch import load_file
from torch.nn import functional as F

config, tensors = json.load(open("config.json")), load_file("generator.safetensors")
g, dense = config["generator"], {"stride": 1, "padding": 0}
names = [f"dense.{i}" for i in range(len(g.get("dense", [])))] + ["project"]
layers = [(name, dense) for name in names] + [(f"blocks.{i}", block) for i, block in enumerate(g["blocks"])]

def draw(z, y=None):  # z: (n, size); y: label vectors (n, classes) of a conditional model; images: (n, c, h, w)
    x = z[:, :, None, None]
    for name, layer in layers:
        x = F.interpolate(x, scale_factor=layer.get("upsample") or 1.0)
        if y is not None:
            x = torch.cat([x, y[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
        of = lambda part: tensors[f"{name}.{part}"].float() if f"{name}.{part}" in tensors else None
        x = F.conv_transpose2d(x, of("conv.weight"), of("conv.bias"), layer["stride"], layer["padding"],
                               layer.get("output_padding", 0))
        mean, var, weight, bias = [of(f"norm.{part}") for part in ("running_mean", "running_var", "weight", "bias")]
        if mean is not None and mean.dim() == 1:
            x = F.batch_norm(x, mean, var, weight, bias, eps=g["norm"]["eps"])
        elif mean is not None:  # batch norm per activation
            x = (x - mean) / torch.sqrt(var + g["norm"]["eps"])
            x = x if weight is None else x * weight + bias
        x = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[g["output"]](x) if name == layers[-1][0] else F.relu(x)
    return x

size, normal = config["latent"]["size"], config["latent"]["distribution"] == "normal"
z = torch.randn(64, size) if normal else 2 * torch.rand(64, size) - 1
y = torch.eye(config["classes"])[torch.arange(64) % config["classes"]] if config.get("classes") else None
images = draw(z, y)  # values in [0, 1] with sigmoid, otherwise in [-1, 1]
