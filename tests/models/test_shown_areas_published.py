"""Areas of tiles at the settings of published image processors: a rectangle that is inverted is where they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from tests.helpers.image_processors import photo, real_processor
from tests.helpers.paths import TESTS
from tests.helpers.tiny import fresh_model
from uniprune.modeling.families import find_adapter
from uniprune.modeling.shown_areas import Area

pytestmark = pytest.mark.exhaustive

NEAR = 1.5
"""Pixels of the processor's output by which interpolation may move an edge; more where it enlarges an image."""
SIZES = ((640, 480), (1280, 400), (333, 999), (150, 1200), (500, 500), (91, 77))


def published(name: str) -> Any:
    fields = json.loads((TESTS / "helpers" / "image_processors" / f"{name}.json").read_text())
    return getattr(transformers, f"{fields.pop('image_processor_type')}Pil").from_dict(fields)


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], int]] = {
    "llava": (lambda: published("llava-1.5-7b"), {}, 336),
    "llava, padded": (
        lambda: transformers.LlavaImageProcessorPil(
            size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, do_pad=True
        ),
        {},
        336,
    ),
    "internvl": (lambda: real_processor("internvl3-8b").image_processor, {"crop_to_patches": True}, 448),
    "llava_next": (lambda: published("llava-next-7b-mistral"), {}, 336),
    "llava_onevision": (transformers.LlavaOnevisionImageProcessorPil, {}, 384),
    "smolvlm": (
        lambda: transformers.SmolVLMImageProcessorPil(
            size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}
        ),
        {},
        512,
    ),
    "gemma3": (lambda: transformers.Gemma3ImageProcessorPil(size={"height": 896, "width": 896}), {}, 896),
}


def tiles(image_processor: Any, image: Image.Image, call: dict[str, Any]) -> Tensor:
    """[tiles, 3, side, side]."""
    nested = type(image_processor).__name__.startswith(("Smol", "LlavaOnevision"))
    pixels: Tensor = image_processor([[image]] if nested else [image], return_tensors="pt", **call)["pixel_values"]
    return pixels.float().flatten(0, -4)


def expected(area: Area, box: tuple[float, float, float, float], side: int) -> list[float]:
    """Edges, in pixels of a tile, of a box given in shares of the image."""
    width, height = area.right - area.left, area.bottom - area.top
    edges = (
        (box[0] - area.left) / width,
        (box[1] - area.top) / height,
        (box[2] - area.left) / width,
        (box[3] - area.top) / height,
    )
    return [min(max(edge, 0.0), 1.0) * side for edge in edges]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_an_inverted_rectangle_is_where_areas_say(name: str, size: tuple[int, int]) -> None:
    make, call, side = CASES[name]
    image_processor, model, (width, height) = make(), fresh_model(name.split(",")[0]), size
    if name.startswith(("llava_next", "llava_onevision")):
        model.config.image_grid_pinpoints = image_processor.image_grid_pinpoints
        model.config.vision_config.image_size = side
    processor: Any = type("Processor", (), {"image_processor": image_processor})
    areas = find_adapter(model).image_areas(processor, (height, width), 1)
    plain, tried = photo(width, height, 1), 0
    before = tiles(image_processor, plain, call)
    assert len(before) == len(areas)
    for across, down in ((1, 1), (6, 1), (4, 4), (1, 6), (6, 6)):  # tenths of the sides
        x0, y0 = across * width // 10, down * height // 10
        x1, y1 = x0 + width // 5, y0 + height // 5
        pixels = np.array(plain)
        pixels[y0:y1, x0:x1] = 255 - pixels[y0:y1, x0:x1]
        change = (tiles(image_processor, Image.fromarray(pixels), call) - before).abs().amax(1)
        for area, found in zip(areas, change, strict=True):
            wanted = expected(area, (x0 / width, y0 / height, x1 / width, y1 / height), side)
            scale = max(side / width / (area.right - area.left), side / height / (area.bottom - area.top), 1.0)
            if min(wanted[2] - wanted[0], wanted[3] - wanted[1]) < 6 * scale:
                continue  # outside of this tile, or an edge of it
            ys, xs = (found > change.max() / 4).nonzero(as_tuple=True)
            got = torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
            torch.testing.assert_close(got.double(), torch.tensor(wanted).double(), atol=NEAR * scale, rtol=0)
            tried += 1
    assert tried
