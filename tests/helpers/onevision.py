"""Prompts of LLaVA-OneVision that its tiny model's own do not show: interpolated grids, several images, videos."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.helpers.oracles import merged_inputs
from tests.helpers.tiny import IMAGE, VIDEO
from uniprune.modeling.tiny import TinyPrompt
from uniprune.models.llava_onevision import TinyLlavaOnevision

SIDE = 5
"""Tokens per side of a tile: an odd number, whose half a video frame rounds up."""


class Interpolated(TinyLlavaOnevision):
    """Interpolates grids of more than one tile, as checkpoints do those of more than nine."""

    most = 1


class Case(NamedTuple):
    """A prompt.

    Attributes:
        tiny: its model.
        x: arguments of a forward.
        grids: (t, h, w) per image.
        tiles: tiles per image, or frames of a video.
    """

    tiny: TinyLlavaOnevision
    x: dict[str, Tensor]
    grids: tuple[tuple[tuple[int, int, int], ...], ...]
    tiles: list[int]


def images(tiny: TinyLlavaOnevision, *sizes: tuple[int, int]) -> dict[str, Tensor]:
    return tiny.batch([tiny.prompt(torch.Generator().manual_seed(0), sizes)])


def several() -> dict[str, Tensor]:
    """Two images as the processor gives them: a base tile each, filled up with tiles that the model drops."""
    tiny, generator = TinyLlavaOnevision((SIDE, SIDE)), torch.Generator().manual_seed(0)
    placed = [IMAGE] * (SIDE * SIDE + 1)
    prompt = TinyPrompt((5, 6, *placed, 7, 8, *placed, 9, 10, 11), (9, 10, 11), ())
    return tiny.batch([prompt]) | {
        "pixel_values": torch.randn(2, 1, 3, tiny.side, tiny.side, generator=generator),
        "image_sizes": torch.tensor([[60, 90], [70, 70]]),
        "batch_num_images": torch.tensor([2]),
    }


def video(side: int, frames: int = 3, newline: int = 1) -> dict[str, Tensor]:
    """One video."""
    tiny, generator = TinyLlavaOnevision((side, side)), torch.Generator().manual_seed(0)
    placed = [VIDEO] * (frames * ((side + 1) // 2) ** 2 + newline)
    pixels = torch.randn(1, frames, 3, tiny.side, tiny.side, generator=generator)
    return tiny.batch([TinyPrompt((5, 6, 7, *placed, 8, 9, 10), (8, 9, 10), ())]) | {"pixel_values_videos": pixels}


@cache
def case(name: str) -> Case:
    plain, small = TinyLlavaOnevision((SIDE, SIDE)), Interpolated((SIDE, SIDE))
    base = (1, SIDE, SIDE)
    match name:
        case "interpolated":
            return Case(small, images(small, (8, 10)), ((base, (1, 4, 5)),), [5])
        case "interpolated twice":
            x = images(small, (10, 10), (3, 4))
            return Case(small, x, ((base, base), (base, (1, 3, 5))), [5, 2])
        case "several images":
            return Case(plain, several(), ((base,), (base,)), [1, 1])
        case "video":
            return Case(plain, video(SIDE), (((3, 3, 3),),), [3])
        case _:
            return Case(TinyLlavaOnevision((4, 4)), video(4), (((3, 2, 2),),), [3])


NAMES = ("interpolated", "interpolated twice", "several images", "video", "video of an even side")
MIXED = ("interpolated", "interpolated twice", "video", "video of an even side")


@cache
def model_of(name: str, attention: str = "sdpa") -> Any:
    return case(name).tiny.model(attention)


def placed(name: str) -> tuple[int, Tensor]:
    """The placeholder's id, and [1, L] True at placeholders whose embedding is not the newline."""
    model, x = model_of(name), case(name).x
    embeds, _ = merged_inputs(model, x)
    visual_id = VIDEO if "pixel_values_videos" in x else IMAGE
    newline = (embeds == model.base_model.image_newline).all(-1)
    return visual_id, (x["input_ids"] == visual_id) & ~newline
