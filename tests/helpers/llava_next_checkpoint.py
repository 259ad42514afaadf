"""A saved checkpoint of an untrained LLaVA-NeXT with its processor: this family has no trained tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from uniprune.models.tiny.build import build_processor

SIDE, PATCH = 48, 12
PINPOINTS = [[48, 96], [96, 48], [96, 96]]


def config(tokenizer: Any) -> LlavaNextConfig:
    """Configure tiles of 4 x 4 tokens and six decoder layers."""
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(SIDE // PATCH) ** 2,
    )


def save(folder: Path) -> None:
    """Save model and processor."""
    plain = build_processor("llava")
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=PINPOINTS
    )
    processor = LlavaNextProcessor(
        image_processor=images,
        tokenizer=plain.tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=plain.chat_template,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config(plain.tokenizer))
    generation = model.generation_config
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(generation, name, getattr(plain.tokenizer, name))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
