"""Tiny trained models: recipe, and weights as safetensors. See `models/tiny/README.md`."""

from uniprune.utils.torchvision_compat import ensure_torchvision

ensure_torchvision()  # the modules of this package import transformers' image classes at their top
