"""The tiny trained models: their recipe, and their weights as safetensors. See `models/tiny/README.md`."""

from uniprune.utils.torchvision_compat import ensure_torchvision

ensure_torchvision()  # here, so that every `python -m uniprune.models.tiny.…` can import image processors
