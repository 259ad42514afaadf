"""LLaVA-NeXT: which placeholder is which patch of which tile, against the model's own packing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from tests.helpers.paths import GOLDEN
from tests.helpers.tiny import tiny_model
from uniprune.errors import UnsupportedError
from uniprune.models.llava_next import COLUMNS, PATCH, LlavaNext

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


@pytest.mark.parametrize("alike", [False, True], ids=["different tiles", "equal tiles"])
def test_layouts_are_those_of_the_model(full_size: Any, alike: bool) -> None:
    """Several images of one call, of any size; blank pages, whose tiles cannot be told apart by content, too."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.randint(20, 2000, (40, 2), generator=generator)
    shapes[:8] = torch.tensor(
        [[336, 336], [336, 672], [1008, 336], [20, 1900], [1900, 20], [337, 335], [50, 96], [7, 9]]
    )
    family = LlavaNext(full_size)
    for image_sizes in shapes.split(4):
        counts = tile_counts(full_size, image_sizes)
        projected = torch.randn(sum(counts), 576, 8, generator=generator)
        if alike:
            projected = projected[:1].expand_as(projected)
        newline = torch.zeros(8)
        full_size.base_model.image_newline.data = newline
        held = torch.cat(packed(full_size, list(projected.split(counts)), image_sizes, newline))
        grids = [(1, 24, 24)] * len(projected)
        pictures = family.image_layouts(grids, lambda made=projected: made, lambda columns, held=held: held[:, columns])
        markers = torch.cat([picture.markers for picture in pictures])
        origins = torch.cat([picture.origins for picture in pictures])
        want = numbered(full_size, image_sizes)
        assert torch.equal(markers, want < 0)
        assert torch.equal(projected.flatten(0, 1)[origins], held[~markers])
        if not alike:
            assert torch.equal(origins, want[want >= 0])
        assert [picture.placeholders for picture in pictures] == [
            len(image) for image in packed(full_size, list(projected.split(counts)), image_sizes, newline)
        ]
        for picture in pictures:
            base, *larger = picture.grids
            assert base == (1, 24, 24)
            for frames, height, width in larger:
                assert (frames, int(picture.markers.sum())) == (1, height)
                assert picture.placeholders == 576 + height * (width + 1)


def test_features_of_other_tiles_are_refused(full_size: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    full_size.base_model.image_newline.data = torch.zeros(8)
    projected = torch.randn(3, 576, 8, generator=generator)
    (held,) = packed(full_size, [projected], torch.tensor([[336, 600]]), torch.zeros(8))
    with pytest.raises(UnsupportedError, match="not made of the tiles"):
        LlavaNext(full_size).image_layouts([(1, 24, 24)] * 3, lambda: projected + 1, lambda columns: held[:, columns])


def watched(held: Tensor) -> tuple[list[slice], Callable[[slice], Tensor]]:
    """What gives columns of `held` when asked, and a list that tells which."""
    looked: list[slice] = []

    def features(columns: slice) -> Tensor:
        looked.append(columns)
        return held[:, columns]

    return looked, features


@pytest.mark.parametrize("copies", [1, 2])
def test_equal_images_and_nearly_equal_tiles(full_size: Any, copies: int) -> None:
    """A picture asked about three times is encoded three times; beams (`copies`) repeat what was encoded once.

    All its tokens agree in every column that is looked at first, as those of a blank page may: another one tells them
    apart.
    """
    wide = 4 * COLUMNS
    sizes = torch.tensor([[336, 336]] * 3)  # 24 x 24: a row of two tiles, a column of two, or one of three
    counts = tile_counts(full_size, sizes)
    one = torch.ones(counts[0], 576, wide)
    one[..., 1] += torch.arange(counts[0] * 576).view(-1, 576)
    projected = one.repeat(3, 1, 1)
    newline = torch.zeros(wide)
    full_size.base_model.image_newline.data = newline
    held = torch.cat(packed(full_size, list(projected.split(counts)), sizes, newline) * copies)
    looked, features = watched(held)
    pictures = LlavaNext(full_size).image_layouts([(1, 24, 24)] * len(projected), lambda: projected, features)
    want = numbered(full_size, sizes)
    assert torch.equal(torch.cat([picture.origins for picture in pictures[:3]]), want[want >= 0])
    for picture in pictures:
        assert torch.equal(projected.flatten(0, 1)[picture.origins], held[: len(picture.markers)][~picture.markers])
    assert looked[0] == slice(None, None, 4)
    assert slice(None) in looked


def test_few_columns_are_enough_for_different_tiles(full_size: Any) -> None:
    """Whole features are 47 MB an image at full width: copying and comparing them took longer than a layer."""
    generator, wide = torch.Generator().manual_seed(0), 4 * COLUMNS
    sizes = torch.tensor([[480, 640], [900, 300]] * 2)
    counts = tile_counts(full_size, sizes)
    projected = torch.randn(sum(counts[:2]), 576, wide, generator=generator).repeat(2, 1, 1)
    newline = torch.randn(wide, generator=generator)
    full_size.base_model.image_newline.data = newline
    held = torch.cat(packed(full_size, list(projected.split(counts)), sizes, newline))
    looked, features = watched(held)
    pictures = LlavaNext(full_size).image_layouts([(1, 24, 24)] * len(projected), lambda: projected, features)
    want = numbered(full_size, sizes)
    assert torch.equal(torch.cat([picture.origins for picture in pictures]), want[want >= 0])
    assert looked == [slice(None, None, 4)]


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
