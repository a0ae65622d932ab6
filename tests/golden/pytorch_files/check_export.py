"""Loads exported netG.safetensors and netD.safetensors into pytorch/examples' modules with strict=True.

Usage: python3 check_export.py DIR, where DIR holds the export of this folder's networks. Compares their outputs in
eval mode with forward.safetensors and fails where they differ.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file

from networks import Discriminator, Generator

here, exported = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[1])
values = load_file(here / "forward.safetensors")
for net, name, given, wanted in [
    (Generator(), "netG", "z", "fake"),
    (Discriminator(), "netD", "x", "score"),
]:
    net.load_state_dict(load_file(exported / f"{name}.safetensors"), strict=True)
    with torch.no_grad():
        difference = (net.eval()(values[given]) - values[wanted]).abs().max().item()
    print(f"{name}: strict load, largest difference {difference:.1e}")
    assert difference < 1e-6, name
