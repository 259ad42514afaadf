"""LLaVA-NeXT: which placeholder is which patch of which tile, against the model's own packing."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from tests.helpers.paths import GOLDEN
from tests.helpers.tiny import tiny_model
from uniprune.models.llava_next import PATCH, LlavaNext

ANYRES = GOLDEN / "vit_gprune.anyres.npz"
RELEASED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Pixel sizes of the released checkpoints."""


def tile_counts(model: Any, image_sizes: Tensor) -> list[int]:
    config = model.config
    side = config.vision_config.image_size
    return [image_size_to_num_patches(size, config.image_grid_pinpoints, side) for size in image_sizes]


def packed(model: Any, tiles: list[Tensor], image_sizes: Tensor, newline: Tensor) -> list[Tensor]:
    """[P, C] per image of tiles [T, N, C], as the model packs them."""
    images: list[Tensor] = model.base_model.pack_image_features(tiles, image_sizes, "default", newline)[0]
    return images


def numbered(model: Any, image_sizes: Tensor) -> Tensor:
    """[P] number of every placeholder's token among those of all tiles; -1 at row ends."""
    counts, size = tile_counts(model, image_sizes), model.config.image_seq_length
    numbers = torch.arange(sum(counts) * size).view(-1, size, 1).split(counts)
    return torch.cat(packed(model, list(numbers), image_sizes, torch.tensor([-1])))[:, 0]


@pytest.fixture(scope="module")
def full_size() -> Any:
    """A tiny model whose tiles have 24 x 24 tokens, cut as the released checkpoints cut."""
    model = tiny_model("llava_next", (24, 24)).model()
    model.config.image_grid_pinpoints = RELEASED
    return model


def test_layouts_are_those_of_the_model(full_size: Any) -> None:
    """Several images of one call, of any size."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(20, 2000, (40, 2), generator=generator)
    shapes[:8] = torch.tensor(
        [[336, 336], [336, 672], [1008, 336], [20, 1900], [1900, 20], [337, 335], [50, 96], [7, 9]]
    )
    adapter, newline = LlavaNext(full_size), torch.zeros(8)
    for image_sizes in shapes.split(4):
        counts = tile_counts(full_size, image_sizes)
        projected = torch.randn(sum(counts), 576, 8, generator=generator)
        images = packed(full_size, list(projected.split(counts)), image_sizes, newline)
        layouts = adapter.image_layouts([(1, 24, 24)] * len(projected), {"image_sizes": image_sizes})
        assert layouts is not None
        for layout, held, first in zip(layouts, images, [0, *accumulate(counts)], strict=False):
            assert layout.markers is not None
            assert layout.origins is not None
            assert torch.equal(layout.markers, (held == 0).all(-1))
            assert torch.equal(projected.flatten(0, 1)[layout.origins.index[:, 0]], held[~layout.markers])
            assert int(layout.origins.index[0]) == 576 * first
            base, *larger = layout.grids
            assert base == (1, 24, 24)
            for frames, height, width in larger:
                assert (frames, int(layout.markers.sum())) == (1, height)
                assert layout.placeholders == len(held) == 576 + height * (width + 1)


@pytest.mark.parametrize("size", [(336, 600), (600, 336), (500, 100)], ids=str)
def test_cells_of_the_larger_grid_are_patches_of_tiles(full_size: Any, size: tuple[int, int]) -> None:
    """By hand: a cell's place in the joined tiles is that in the grid and half of what was cropped."""
    height, width = size
    rows, columns = {(336, 600): (1, 2), (600, 336): (2, 1), (500, 100): (2, 1)}[size]
    scale = min(336 * rows / height, 336 * columns / width)
    top, left = ((24 * full - int(scale * side / 14)) // 2 for full, side in ((rows, height), (columns, width)))
    (layout,) = LlavaNext(full_size).image_layouts([(1, 24, 24)] * (1 + rows * columns), {"image_sizes": [list(size)]})
    _, (_, high, wide) = layout.grids
    assert (high, wide) == (24 * rows - 2 * top, 24 * columns - 2 * left)
    row, column = (top + torch.arange(high))[:, None], (left + torch.arange(wide))[None]
    tile = 1 + row // 24 * columns + column // 24
    want = (576 * tile + row % 24 * 24 + column % 24).flatten()
    assert torch.equal(layout.origins.index[576:, 0], want)


def test_patches_are_those_of_the_tiny_model() -> None:
    """The processor's own formula counts the placeholders of the tiny prompts."""
    from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor

    small = tiny_model("llava_next")
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.patch_size, processor.num_additional_image_tokens = PATCH, 0
    processor.image_processor = LlavaNextImageProcessorPil(image_grid_pinpoints=small.pinpoints)
    for size in ((4, 6), (4, 4), (6, 2), (9, 8), (7, 3), (1, 1)):
        wanted = processor._get_number_of_features(*(PATCH * side for side in size), small.side, small.side)
        assert small.adapter.placeholders(size, 1) == wanted
