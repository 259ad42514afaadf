"""The part of a model's adapter that maps visual tokens to the picture: the area that each grid of the tower shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError
from uniprune.pruning.input_stage import Size
from uniprune.pruning.view import Grid


class Area(NamedTuple):
    """A rectangle of a picture, in shares of its width and height; beyond 0 and 1 is padding."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = Area(0.0, 0.0, 1.0, 1.0)
"""The whole picture, stretched if need be."""


@dataclass(frozen=True)
class Shown:
    """Areas that the vision tower's grids of one image or clip show.

    Attributes:
        areas: one per grid (image, tile or frames) of the tower's call, in its order.
        pictures: number of pictures: 1, or the frames of a clip.
        step: consecutive frames that one step in time of a grid shows; 0 for an image, all of whose grids show one
            picture.
    """

    areas: tuple[Area, ...]
    pictures: int = 1
    step: int = 0


class ShownAreas:
    """Areas that grids show; by default none is described, and selections are neither drawn nor stored."""

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """Return what every grid that the tower makes of an image shows, in the tower's order.

        Args:
            processor: that of the prompt.
            size: height and width of the image in pixels.
            images: images of the prompt.

        Raises:
            UnsupportedError: the family, or this processor, does not describe them.
        """
        raise _undescribed(type(self).__name__, "image_areas")

    def clip_areas(self, processor: Any, size: Size, frames: int) -> Shown:
        """Return the same of a clip of so many frames.

        Raises:
            UnsupportedError: as `image_areas`.
        """
        raise _undescribed(type(self).__name__, "clip_areas")


def _undescribed(name: str, method: str) -> UnsupportedError:
    return UnsupportedError(
        f"the areas of a picture that the visual tokens of {name} show are not described ({method}), so kept tokens "
        "can be neither drawn nor stored; use a model of another family, or leave out --keep-selections"
    )


def check_described(image_processor: Any, *kinds: str) -> None:
    """Check that an image processor is of a kind whose areas are described.

    Raises:
        UnsupportedError: it is another.
    """
    name = type(image_processor).__name__
    if name.removesuffix("Fast").removesuffix("Pil") not in kinds:
        raise UnsupportedError(
            f"the areas of a picture that the tokens of {name} show are not described, so kept tokens can be neither "
            f"drawn nor stored; expected {' or '.join(kinds)}"
        )


def framed(size: Size, corner: tuple[float, float], frame: tuple[float, float]) -> Area:
    """Return a frame of an image of `size`; `corner` is its top and left, `frame` its height and width, in pixels."""
    (height, width), (top, left) = size, corner
    return Area(left / width, top / height, (left + frame[1]) / width, (top + frame[0]) / height)


def within(area: Area, inner: Area) -> Area:
    """Return an area given in shares of another one."""
    width, height = area.right - area.left, area.bottom - area.top
    return Area(
        area.left + inner.left * width,
        area.top + inner.top * height,
        area.left + inner.right * width,
        area.top + inner.bottom * height,
    )


def cut(area: Area, rows: int, columns: int) -> list[Area]:
    """Cut an area into equal tiles, row by row."""
    places = ((row, column) for row in range(rows) for column in range(columns))
    return [within(area, Area(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows)) for y, x in places]


def padded_to_square(size: Size) -> Area:
    """Return the square around an image that is padded at the centre, as LLaVA's processors do."""
    side = max(size)
    return framed(size, (-((side - size[0]) // 2), -((side - size[1]) // 2)), (side, side))


def scaled_and_cropped(image_processor: Any, size: Size) -> Area:
    """Return what is left of an image that is scaled, then cropped at the centre, as by CLIP's processor."""
    own, (height, width) = image_processor, size
    if own.do_resize and (edge := (own.size or {}).get("shortest_edge")):
        short, long = sorted(size)
        sides = edge, int(edge * long / short)
        height, width = sides if height <= width else sides[::-1]
    elif own.do_resize:
        height, width = own.size["height"], own.size["width"]
    if not own.do_center_crop:
        return WHOLE
    frame = own.crop_size["height"], own.crop_size["width"]
    # Cropped at whole pixels; smaller images are padded first, the odd pixel at the end.
    corner = [
        int((have - want) / 2) if want <= have else -((want - have) // 2)
        for have, want in zip((height, width), frame, strict=True)
    ]
    return framed((height, width), (corner[0], corner[1]), frame)


def areas_of_tokens(shown: Sequence[Area], grids: Sequence[Grid], tokens: Tensor) -> Tensor:
    """Return [N, 4] the areas of tokens [N] of a call of the tower, numbered through its grids.

    Args:
        shown: the area of every grid.
        grids: (t, h, w) of them.
        tokens: numbers of the tokens.
    """
    stops = torch.tensor(list(accumulate(map(prod, grids))))
    number = torch.bucketize(tokens, stops, right=True)
    sizes = torch.tensor([grid[1:] for grid in grids])[number]
    inside = (tokens - (stops - torch.tensor(list(map(prod, grids))))[number]) % sizes.prod(1)
    areas = torch.tensor(shown, dtype=torch.float64)[number]
    place = torch.stack((inside % sizes[:, 1], inside // sizes[:, 1]), 1)
    side = (areas[:, 2:] - areas[:, :2]) / sizes.flip(1)
    corner = areas[:, :2] + place * side
    return torch.cat((corner, corner + side), 1)
