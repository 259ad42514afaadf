"""Tiny random-weight models of every family, with inputs, for CPU tests of the engine."""

from __future__ import annotations

import inspect
from functools import cache
from itertools import cycle
from math import prod
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from tests.helpers.variants import VARIANTS
from uniprune.modeling.tiny import IMAGE, IMAGE_END, IMAGE_START, LAYERS, PAD, VIDEO, TinyModel, tiny_model
from uniprune.pruning.view import Grid

__all__ = ["IMAGE", "LAYERS", "PAD", "VIDEO", "tiny_model"]

FAMILIES = ("llava", "internvl", "qwen2_5_vl", "llava_next")
"""Families on which every test of the engine runs."""
COVERED = (
    *("internvl-qwen3", "internvl-qwen3_moe", "llava-siglip-qwen2", "llava_next-mistral"),
    *("qwen2_vl", "glm4v", "glm4v_moe", "glm46v"),
    *("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"),
    *("llava_onevision", "llava_next_video"),
    *("smolvlm", "idefics3", "llava-pixtral", "mistral3"),
    *("gemma3", "gemma4", "gemma4-26b", "gemma4-e2b"),
)
"""Further families, and others with another language model, of `test_covered_families.py` and `test_covered.py`."""
WINDOWED = ("llava-mistral", "llava-gemma3_text", "internvl-gpt_oss")
"""Families with a language model that has windows: tests/engine/test_layer_kinds.py runs on them."""
WITHOUT_LLM_ATTENTION = ("mistral3-ministral3",)
"""Others, whose decoder's attention is not recomputed: `test_ministral3.py`."""
VISION_START = IMAGE_START
INTERLEAVES_BEAMS = "mm_encoder_outputs" not in inspect.signature(LlavaForConditionalGeneration.forward).parameters
"""Transformers 5.17 repeats the images of a prompt one by one for beams, which only fits prompts of one image."""
SIZES = ((4, 6), (4, 4), (6, 2))
"""Grids that images of dynamic size cycle through: 24, 16 and 12 tokens."""


PIXELS = ("pixel_values", "image_sizes", "image_position_ids")
"""Arguments of a forward with a row per image."""


@cache
def small(family: str) -> TinyModel:
    """Return a shared tiny model, to make prompts: a new one takes 20 ms."""
    return VARIANTS[family]() if family in VARIANTS else tiny_model(family)


def fresh_model(family: str, attention: str = "sdpa", **text: Any) -> Any:
    """Build a new model; `text` changes fields of the decoder's config."""
    return small(family).model(attention, **text)


@cache
def build(family: str, attention: str = "sdpa") -> Any:
    """Build a shared model: tests must restore it."""
    return fresh_model(family, attention)


def inputs(family: str, images: tuple[int, ...] = (1,), seed: int = 0, tiles: int = 1) -> dict[str, Tensor]:
    """Build a left-padded batch whose row b has images[b] images with text between them: arguments of a forward.

    `tiles` is the number of InternVL tiles per image.
    """
    tiny, generator = small(family), torch.Generator().manual_seed(seed)
    sizes = cycle(SIZES if tiny.dynamic else [tiny.size])
    prompts = [
        tiny.prompt(generator, [next(sizes) for _ in range(number)], before=5 + b, question=7 + 2 * b, tiles=tiles)
        for b, number in enumerate(images)
    ]
    return tiny.batch(prompts)


def visual(x: dict[str, Tensor]) -> Tensor:
    """[B, L] True at placeholders that carry a visual token, by LLaVA-NeXT's own code."""
    places = x["input_ids"] == IMAGE
    if "image_sizes" in x and x["pixel_values"].dim() == 5:
        base = build("llava_next").base_model
        config = base.config
        tiles = [
            image_size_to_num_patches(size, config.image_grid_pinpoints, config.vision_config.image_size)
            for size in x["image_sizes"]
        ]
        ones, newline = [torch.ones(count, config.image_seq_length, 1) for count in tiles], torch.zeros(1)
        packed, _ = base.pack_image_features(ones, x["image_sizes"], "default", newline)
        places[places.clone()] = torch.cat(packed)[:, 0] > 0
    return places


def video_inputs(seconds: float | None = None) -> dict[str, Tensor]:
    """Build a Qwen2.5-VL prompt with a video of two temporal patches, 48 tokens; `seconds` lie between the patches."""
    grid, generator = (2, 8, 12), torch.Generator().manual_seed(0)
    ids = torch.tensor([[5, 6, 7, VISION_START, *[VIDEO] * 48, 8, 9, 10, 11, 12]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == VIDEO).int() * 2,
        "pixel_values_videos": torch.randn(2 * 8 * 12, 3 * 2 * 14 * 14, generator=generator),
        "video_grid_thw": torch.tensor([grid]),
        **({} if seconds is None else {"second_per_grid_ts": torch.tensor([seconds])}),
    }


def stamped_videos(family: str, clips: tuple[Grid, ...] = ((3, 4, 6), (2, 8, 4))) -> dict[str, Tensor]:
    """Build a prompt of Qwen3-VL or GLM with clips of (t, h, w) patches, whose frames stand between time stamps."""
    generator, config = torch.Generator().manual_seed(0), small(family).adapter.model.config
    one_by_one = family.startswith("glm")
    ids = [5, 6]
    for t, h, w in clips:
        ids += [config.video_start_token_id] if one_by_one else []
        for frame in range(t):
            inner = [IMAGE if one_by_one else VIDEO] * (h * w // 4)
            ids += [20 + frame, IMAGE_START, *inner, IMAGE_END]
        ids += [config.video_end_token_id, 8, 9] if one_by_one else [8, 9]
    tokens = torch.tensor([[*ids, 10, 11, 12]])
    patch = config.vision_config.patch_size
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": ((tokens == VIDEO) | (tokens == IMAGE)).int() * 2,
        "pixel_values_videos": torch.randn(sum(map(prod, clips)), 3 * 2 * patch**2, generator=generator),
        "video_grid_thw": torch.tensor(clips),
    }


def row(family: str, batch: dict[str, Tensor], b: int, images: tuple[int, ...]) -> dict[str, Tensor]:
    """Return row b of a batch as a batch of its own, un-padded."""
    real = batch["attention_mask"][b].bool()
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
    single = {name: batch[name][b : b + 1, real] for name in names if name in batch}
    mine = slice(sum(images[:b]), sum(images[: b + 1]))
    if images[b] and "image_grid_thw" in batch:
        sizes = batch["image_grid_thw"].prod(-1).tolist()
        single["image_grid_thw"] = batch["image_grid_thw"][mine]
        single["pixel_values"] = torch.cat(batch["pixel_values"].split(sizes)[mine])
    elif images[b] and family in ("smolvlm", "idefics3"):  # pixels have a row per prompt
        single["pixel_values"] = batch["pixel_values"][b : b + 1]
    elif images[b]:
        single |= {name: batch[name][mine] for name in PIXELS if name in batch}
    return single
