"""Untrained tiny models of every family that takes videos, behind their processors' real classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.families import find_adapter
from uniprune.modeling.loading import LoadedModel, Placement
from uniprune.modeling.tiny import TEXT, spread, tiny_model
from uniprune.models.tiny.build import build_processor

SIDE = 56
"""Pixels of a side of a frame: 4 x 4 patches of 14."""
FAMILIES = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "glm4v": "Glm4v",
    "llava_onevision": "LlavaOnevision",
    "llava_next_video": "LlavaNextVideo",
}
"""Family -> beginning of its processor's name."""
MARKS = ["<|begin_of_video|>", "<|end_of_video|>", "<|begin_of_image|>", "<|end_of_image|>"]
"""Tokens that GLM's processor writes around videos and their frames."""


def video_model(family: str) -> LoadedModel:
    """Build a model with its processor."""
    processor = video_processor(family)
    tokenizer = processor.tokenizer
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = tiny_model(family).config({**TEXT, **ids, "vocab_size": len(tokenizer)})
    tokens = {"image_token_id": "<image>", "video_token_id": "<video>", "vision_start_token_id": "<img>",
              "vision_end_token_id": "</img>", "video_start_token_id": MARKS[0], "video_end_token_id": MARKS[1],
              "image_start_token_id": MARKS[2], "image_end_token_id": MARKS[3]}  # fmt: skip
    for name, token in tokens.items():
        if hasattr(config, name):
            setattr(config, name, tokenizer.convert_tokens_to_ids(token))
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForImageTextToText.from_config(config).eval()
    spread(model, seed=1)
    for name, value in ids.items():
        setattr(model.generation_config, name, value)
    placement = Placement("float32", "sdpa", "cpu")
    entry = ModelEntry(name=f"tiny {family}", source="nowhere")
    return LoadedModel(entry, model, processor, find_adapter(model), placement, "0", str(Path("nowhere")))


def video_processor(family: str) -> Any:
    """Build a processor that shows videos."""
    plain = build_processor("qwen2.5-vl")
    tokenizer, template, kind = plain.tokenizer, plain.chat_template, FAMILIES[family]
    processor = getattr(transformers, f"{kind}Processor")
    if family.startswith("llava"):
        square = {"size": {"height": SIDE, "width": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
        template = template.replace("<img>", "").replace("</img>", "")
        pinpoints = {"image_grid_pinpoints": tiny_model(family).pinpoints}  # type: ignore[attr-defined]
        own = (
            {"num_image_tokens": 16}
            if family == "llava_onevision"
            else {"patch_size": 14, "num_additional_image_tokens": 1}
        )
        choice = "full" if family == "llava_onevision" else "default"
        images = getattr(transformers, f"{kind.removesuffix('Video')}ImageProcessorPil")(**square, **pinpoints)
        videos = getattr(transformers, f"{kind}VideoProcessor")(**square)
        return processor(image_processor=images, tokenizer=tokenizer, video_processor=videos, chat_template=template,
                         vision_feature_select_strategy=choice, **own)  # fmt: skip
    if family == "glm4v":
        tokenizer.add_tokens(MARKS, special_tokens=True)
        template = template.replace("<img><video></img>", f"{MARKS[0]}<video>{MARKS[1]}")
    named = {"glm4v": "Glm4v", "qwen3_vl": "Qwen3VL"}.get(family, "Qwen2VL")
    patch = 16 if family == "qwen3_vl" else 14
    area = (8 if family in ("glm4v", "qwen3_vl") else 1) * (4 * patch) ** 2  # the sum over frames, or each
    sizes = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    limits = {"size": {"shortest_edge": area, "longest_edge": area}}
    images = transformers.Qwen2VLImageProcessorPil(**sizes, **limits)
    videos = getattr(transformers, f"{named}VideoProcessor")(**sizes, **limits)
    return processor(images, tokenizer, videos, chat_template=template)
