"""Loads exported netG.safetensors and netD.safetensors into pytorch/examples' modules with strict=True.

Usage: python3 check_export.py DIR, where DIR contains the export of the networks of this folder. Compares their outputs
in eval mode with forward.safetensors and fails if they differ.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file

from networks import Discriminator, Generator

here, exported = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[1])
values = load_file(here / "forward.safetensors")
for net, name, input_name, output_name in [
    (Generator(), "netG", "z", "fake"),
    (Discriminator(), "netD", "x", "score"),
]:
    net.load_state_dict(load_file(exported / f"{name}.safetensors"), strict=True)
    with torch.no_grad():
        difference = (net.eval()(values[input_name]) - values[output_name]).abs().max().item()
    print(f"{name}: strict load, largest difference {difference:.1e}")
    assert difference < 1e-6, name
