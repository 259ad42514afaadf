"""The tiny trained models: their recipe, and their weights as safetensors. See `models/tiny/README.md`."""
