"""The four tiny architectures: Hugging Face classes with random weights, and their processors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from uniprune.synthetic import CELL, GRID, SIZE

from .tokenizer import build_tokenizer

FAMILIES = ("llava", "internvl", "qwen2.5-vl", "qwen3-vl")
QWEN = ("qwen2.5-vl", "qwen3-vl")
"""Families with patches in the order of Qwen's processor, positions of three coordinates, and no class token."""
WIDTH, LAYERS, HEADS, THETA = 128, 6, 4, 1000.0
"""Language model: hidden size, decoder layers, attention heads, RoPE base; the same in every family."""
VISION_WIDTH = {"llava": 96, "internvl": 64, "qwen2.5-vl": 96, "qwen3-vl": 56}
MEAN, STD = 0.45, 0.25
"""Pixel normalisation, the same for every channel."""

_CHAT = (
    "{{ '<bos>' }}{% for m in messages %}{{ '<user>' if m['role'] == 'user' else '<assistant>' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ 'IMAGE' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
_VIDEO = ("{% else %}{{ c[", "{% elif c['type'] == 'video' %}{{ '<img><video></img>' }}{% else %}{{ c[")
"""Change of the template for videos. No tiny model was trained on any; this lets one run what is around the model."""
PREFIX = {
    "llava": ("<bos><user>", ""),
    "internvl": ("<bos><user><img>", "</img>"),
    "qwen2.5-vl": ("<bos><user><img>", "</img>"),
    "qwen3-vl": ("<bos><user><img>", "</img>"),
}
"""Text before and after the visual tokens in a prompt of each family."""


def build_model(family: str, seed: int) -> Any:
    """Build an untrained model of one family; the same seed gives the same weights."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    makers = {"llava": _llava, "internvl": _internvl, "qwen2.5-vl": _qwen2_5, "qwen3-vl": _qwen3}
    model = makers[family](tokenizer)
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name or "embedding" in name:
            nn.init.normal_(parameter, std=0.05)
        elif parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.7 * parameter.shape[1] ** -0.5)
    model.tie_weights()
    generation = model.generation_config
    generation.bos_token_id, generation.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    return model


def _text(tokenizer: PreTrainedTokenizerFast, **extra: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": THETA} | extra.pop("rope", {})
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": rope,
        **extra,
    }


def _llava(tokenizer: PreTrainedTokenizerFast) -> Any:
    width = VISION_WIDTH["llava"]
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=CELL,
        projection_dim=width,
        hidden_act="gelu_pytorch_tanh",
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=GRID * GRID,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)


def _internvl(tokenizer: PreTrainedTokenizerFast) -> Any:
    width, patch = VISION_WIDTH["internvl"], CELL // 2
    vision = InternVLVisionConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=[SIZE, SIZE],
        patch_size=[patch, patch],
        norm_type="layer_norm",
        use_mask_token=False,
        attention_bias=True,
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=GRID * GRID,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    return InternVLForConditionalGeneration(config)


def _qwen2_5(tokenizer: PreTrainedTokenizerFast) -> Any:
    vision = _qwen_vision("qwen2.5-vl", times=2) | {
        "window_size": 8 * (CELL // 2),
        "fullatt_block_indexes": [1, 3],
        "hidden_act": "silu",
    }
    text = _text(tokenizer, rope={"mrope_section": [4, 6, 6]})
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **_qwen_ids(tokenizer))
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3(tokenizer: PreTrainedTokenizerFast) -> Any:
    vision = _qwen_vision("qwen3-vl", times=3) | {
        "num_position_embeddings": (2 * GRID) ** 2,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    rope = {"mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text = _text(tokenizer, rope=rope, head_dim=WIDTH // HEADS)
    config = Qwen3VLConfig(vision_config=vision, text_config=text, **_qwen_ids(tokenizer))
    return Qwen3VLForConditionalGeneration(config)


def _qwen_vision(family: str, times: int) -> dict[str, Any]:
    width = VISION_WIDTH[family]
    return {
        "depth": 4,
        "hidden_size": width,
        "intermediate_size": times * width,
        "num_heads": 2,
        "patch_size": CELL // 2,
        "spatial_merge_size": 2,
        "temporal_patch_size": 1,
        "out_hidden_size": WIDTH,
    }


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<video>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<img>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("</img>"),
        "tie_word_embeddings": True,
    }


def build_processor(family: str) -> Any:
    """Build the processor of one family: image processor (PIL), tokenizer and chat template."""
    tokenizer = build_tokenizer()
    pixels: dict[str, Any] = {"image_mean": [MEAN] * 3, "image_std": [STD] * 3, "do_convert_rgb": True}
    side = {"height": SIZE, "width": SIZE}
    if family == "llava":
        return LlavaProcessor(
            image_processor=CLIPImageProcessorPil(size=side, do_center_crop=False, **pixels),
            tokenizer=tokenizer,
            patch_size=CELL,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            image_token="<image>",
            chat_template=_CHAT.replace("IMAGE", "<image>"),
        )
    if family == "internvl":
        return InternVLProcessor(
            image_processor=GotOcr2ImageProcessorPil(size=side, crop_to_patches=False, **pixels),
            tokenizer=tokenizer,
            video_processor=InternVLVideoProcessor(size=side),
            image_seq_length=GRID * GRID,
            chat_template=_CHAT.replace("IMAGE", "<image>"),
        )
    limits = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
    patches: dict[str, Any] = {"patch_size": CELL // 2, "temporal_patch_size": 1, "merge_size": 2}
    images = Qwen2VLImageProcessorPil(size=limits, **patches, **pixels)
    template = _CHAT.replace("IMAGE", "<img><image></img>")
    if family == "qwen2.5-vl":
        videos = Qwen2VLVideoProcessor(size=limits, **patches, **pixels)
        return Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=template.replace(*_VIDEO))
    tokenizer = build_tokenizer(vision_start_token="<img>", vision_end_token="</img>")
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(**patches), chat_template=template)
