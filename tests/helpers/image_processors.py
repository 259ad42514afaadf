"""Processors with the image settings of published checkpoints and the tokenizers of the tiny models."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.paths import TESTS
from uniprune.models.tiny.build import build_processor

FAMILIES = {
    "internvl3-8b": "internvl",
    "llava-1.5-7b": "llava",
    "qwen2-vl-7b": "qwen2.5-vl",
    "qwen2.5-vl-7b": "qwen2.5-vl",
    "qwen3-vl-8b": "qwen2.5-vl",
}
"""Name in configs/models.yaml -> family of `build_processor`."""


def real_processor(name: str) -> Any:
    """Build the processor of a published checkpoint, with another tokenizer."""
    import transformers

    fields = json.loads((TESTS / "helpers" / "image_processors" / f"{name}.json").read_text())
    kind = getattr(transformers, fields.pop("image_processor_type").removesuffix("Fast"))
    processor = build_processor(FAMILIES[name])
    processor.image_processor = kind.from_dict(fields)
    processor.image_seq_length, processor.patch_size = 256, 14
    return processor


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw a picture with smooth and sharp parts."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)
