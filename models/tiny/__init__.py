"""The tiny trained models: their recipe, and their weights as safetensors. See `models/tiny/README.md`."""

from uniprune.torchvision_remedy import ensure_torchvision

ensure_torchvision()  # here, so that every `python -m models.tiny.…` can import image processors
