"""Tiny random-weight models of the three families, with inputs, for CPU tests of the engine."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
)

VOCAB, IMAGE, VIDEO, VISION_START, PAD = 300, 299, 298, 297, 0
LAYERS = 5
FAMILIES = ("llava", "internvl", "qwen2_5_vl")
GRIDS = ((1, 8, 12), (1, 8, 8), (1, 12, 4))
"""Patch grids the Qwen images cycle through: 24, 16 and 12 tokens."""


def _spread(model: nn.Module, seed: int) -> None:
    """Redraw all weights with a larger spread: the default gives near-uniform attention, which proves little."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.dim() >= 2 and "embed_tokens" not in name and "position_embedding" not in name:
                parameter.copy_(noise * (1.8 / parameter[0].numel() ** 0.5))
            elif "norm" in name and "weight" in name:
                parameter.copy_(1 + 0.1 * noise)
            elif "bias" in name or "cls_token" in name or "class_embedding" in name:
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(0.7 * noise)


def _text(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": PAD,
        "tie_word_embeddings": False,
        **more,
    }


VISION = {"hidden_size": 32, "intermediate_size": 48}


def llava_config(**text: Any) -> LlavaConfig:
    vision = CLIPVisionConfig(
        **VISION,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        projection_dim=32,
        vocab_size=100,
    )
    return LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**_text(**text)), image_token_index=IMAGE, image_seq_length=16
    )


def internvl_config(**text: Any) -> InternVLConfig:
    vision = {
        **VISION,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": [112, 112],
        "patch_size": [14, 14],
        "use_qk_norm": True,
        "attention_bias": True,
    }
    return InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**_text(**text)),
        image_token_id=IMAGE,
        image_seq_length=16,
        tie_word_embeddings=False,
    )


def qwen2_5_vl_config(**text: Any) -> Qwen2_5_VLConfig:
    vision = {
        **VISION,
        "depth": 4,
        "num_heads": 4,
        "patch_size": 14,
        "window_size": 56,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1, 3],
    }
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    return Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=_text(rope_parameters=rope, **text),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=296,
    )


CLASSES = {
    "llava": (LlavaForConditionalGeneration, llava_config),
    "internvl": (InternVLForConditionalGeneration, internvl_config),
    "qwen2_5_vl": (Qwen2_5_VLForConditionalGeneration, qwen2_5_vl_config),
}


def fresh_model(family: str, attention: str = "sdpa", **text: Any) -> Any:
    """A new model; `text` changes fields of the decoder's config."""
    cls, config = CLASSES[family]
    model = cls._from_config(config(**text), attn_implementation=attention).eval()
    _spread(model, seed=1)
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    return model


@cache
def build(family: str, attention: str = "sdpa") -> Any:
    """A shared model: tests must leave it as they found it."""
    return fresh_model(family, attention)


def inputs(family: str, images: tuple[int, ...] = (1,), seed: int = 0, tiles: int = 1) -> dict[str, Tensor]:
    """A left-padded batch whose row b has images[b] images with text between them; kwargs of generate and forward.

    `tiles` is the number of InternVL tiles per image.
    """
    generator = torch.Generator().manual_seed(seed)
    total = sum(images)
    grids = [GRIDS[i % len(GRIDS)] for i in range(total)]
    counts = [t * h * w // 4 for t, h, w in grids] if family == "qwen2_5_vl" else [16 * tiles] * total

    def words(n: int) -> list[int]:
        return torch.randint(5, 290, (n,), generator=generator).tolist()

    rows, sizes = [], iter(counts)
    for b, number in enumerate(images):
        ids = words(5 + b)
        for _ in range(number):
            ids += [VISION_START] * (family == "qwen2_5_vl") + [IMAGE] * next(sizes) + words(3)
        rows.append(ids + words(7 + 2 * b))
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    batch = {"input_ids": ids, "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])}
    if family == "qwen2_5_vl":
        batch["mm_token_type_ids"] = (ids == IMAGE).int()
    if total and family == "qwen2_5_vl":
        patches = sum(t * h * w for t, h, w in grids)
        batch["pixel_values"] = torch.randn(patches, 3 * 2 * 14 * 14, generator=generator)
        batch["image_grid_thw"] = torch.tensor(grids)
    elif total:
        side = 56 if family == "llava" else 112
        batch["pixel_values"] = torch.randn(total * tiles, 3, side, side, generator=generator)
    return batch


def video_inputs() -> dict[str, Tensor]:
    """One Qwen2.5-VL prompt with a video of two temporal patches, 48 tokens."""
    grid, generator = (2, 8, 12), torch.Generator().manual_seed(0)
    ids = torch.tensor([[5, 6, 7, VISION_START, *[VIDEO] * 48, 8, 9, 10, 11, 12]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == VIDEO).int() * 2,
        "pixel_values_videos": torch.randn(2 * 8 * 12, 3 * 2 * 14 * 14, generator=generator),
        "video_grid_thw": torch.tensor([grid]),
    }


def row(family: str, batch: dict[str, Tensor], b: int, images: tuple[int, ...]) -> dict[str, Tensor]:
    """Row b of a batch as a batch of its own, un-padded."""
    real = batch["attention_mask"][b].bool()
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    single = {name: batch[name][b : b + 1, real] for name in names if name in batch}
    mine = slice(sum(images[:b]), sum(images[: b + 1]))
    if images[b] and family == "qwen2_5_vl":
        sizes = batch["image_grid_thw"].prod(-1).tolist()
        single["image_grid_thw"] = batch["image_grid_thw"][mine]
        single["pixel_values"] = torch.cat(batch["pixel_values"].split(sizes)[mine])
    elif images[b]:
        single["pixel_values"] = batch["pixel_values"][mine]
    return single
