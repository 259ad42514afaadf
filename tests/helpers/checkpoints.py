"""Saved checkpoints of untrained tiny models of families without a trained one, with the real classes of processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from uniprune.modeling.tiny import TEXT, spread, tiny_model
from uniprune.models.tiny.build import build_processor

PROCESSORS = {"glm4v": "Glm4vProcessor", "qwen2_vl": "Qwen2VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}
IMAGES = {"glm4v": "Glm4vImageProcessorPil"}
VIDEOS = {"glm4v": "Glm4vVideoProcessor", "qwen3_vl": "Qwen3VLVideoProcessor"}
SIDE = 56 * 2
"""Pixels of a side of an image of few tokens, a multiple of both families' patches."""


def save(family: str, folder: Path) -> Path:
    """Save model and processor of one of `PROCESSORS`."""
    plain = build_processor("qwen2.5-vl")
    tokenizer, patch = plain.tokenizer, 16 if family == "qwen3_vl" else 14
    kinds = (IMAGES.get(family, "Qwen2VLImageProcessorPil"), VIDEOS.get(family, "Qwen2VLVideoProcessor"))
    sizes = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    limits = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    images, videos = (getattr(transformers, kind)(**sizes, size=limits) for kind in kinds)
    processor = getattr(transformers, PROCESSORS[family])(images, tokenizer, videos, chat_template=plain.chat_template)
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = tiny_model(family).config({**TEXT, **ends, "vocab_size": len(tokenizer)})
    config.image_token_id, config.video_token_id = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    for name, token in (("vision_start_token_id", "<img>"), ("vision_end_token_id", "</img>"),
                        ("image_start_token_id", "<img>"), ("image_end_token_id", "</img>")):  # fmt: skip
        if hasattr(config, name):
            setattr(config, name, tokenizer.convert_tokens_to_ids(token))
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForImageTextToText.from_config(config)
    spread(model, seed=1)
    for name, value in ends.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
