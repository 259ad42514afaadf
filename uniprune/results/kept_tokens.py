"""Kept visual tokens of a row, with the areas of the pictures that they show: enough to draw them without the model."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from math import prod
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(allow_inf_nan=False)]


class Cell(NamedTuple):
    """A visual token over its picture.

    Attributes:
        number: its number among all tokens of the row.
        picture: number of the picture, see `ShownGrid.pictures`.
        area: left, top, right and bottom in shares of the picture; beyond 0 and 1 is padding.
    """

    number: int
    picture: int
    area: tuple[float, float, float, float]


class ShownGrid(BaseModel):
    """A grid of visual tokens and what it shows."""

    model_config = ConfigDict(frozen=True)

    size: tuple[int, int, int]
    """Steps in time, rows, columns."""
    area: tuple[Share, Share, Share, Share]
    """Left, top, right and bottom of the grid in shares of a picture's width and height; beyond 0 and 1 is padding."""
    pictures: list[int]
    """For every step in time the number of the picture, counted through the row's images, then its frames."""

    @property
    def tokens(self) -> int:
        """Number of cells."""
        return prod(self.size)


class KeptCells(BaseModel):
    """Tokens that are left after a pruning point."""

    model_config = ConfigDict(frozen=True)

    layer: int
    """The first decoder layer that receives fewer tokens."""
    bits: str
    """A bit per token of the row's grids, in their order, eight to a byte from the highest on, in base64."""
    merged: str | None = None
    """The same for kept tokens that a method replaced, by a mean of several, say; absent if that is unknown."""

    @classmethod
    def of(cls, layer: int, kept: npt.NDArray[np.bool_], merged: npt.NDArray[np.bool_] | None = None) -> KeptCells:
        """Pack masks of the row's tokens [N]."""
        return cls(layer=layer, bits=_packed(kept), merged=None if merged is None else _packed(merged))

    def mask(self, tokens: int) -> npt.NDArray[np.bool_]:
        """Return [N] True at kept ones of the row's `tokens`."""
        return _unpacked(self.bits, tokens)

    def merged_mask(self, tokens: int) -> npt.NDArray[np.bool_] | None:
        """Return [N] True at kept tokens that were replaced; None if that is unknown."""
        return None if self.merged is None else _unpacked(self.merged, tokens)


class Selections(BaseModel):
    """Kept tokens of a row at every pruning point.

    Costs about N / 6 bytes of a stored line per pruning point, and 60 per grid.
    """

    model_config = ConfigDict(frozen=True)

    grids: list[ShownGrid]
    """The row's grids."""
    stages: list[KeptCells]
    """Its pruning points, in order; none without pruning."""

    @property
    def tokens(self) -> int:
        """N, the row's visual tokens before pruning."""
        return sum(grid.tokens for grid in self.grids)

    @property
    def pictures(self) -> int:
        """Number of pictures that grids show."""
        return 1 + max((picture for grid in self.grids for picture in grid.pictures), default=-1)

    def kept(self, stage: int = -1) -> npt.NDArray[np.bool_]:
        """Return [N] True at tokens left after a pruning point, by default the last."""
        return self.stages[stage].mask(self.tokens) if self.stages else np.ones(self.tokens, bool)

    def cells(self) -> Iterator[Cell]:
        """Yield every token with its area, grid after grid."""
        number = 0
        for grid in self.grids:
            (_, rows, columns), (left, top, right, bottom) = grid.size, grid.area
            width, height = (right - left) / columns, (bottom - top) / rows
            for picture in grid.pictures:
                for row in range(rows):
                    for column in range(columns):
                        x, y = left + column * width, top + row * height
                        yield Cell(number, picture, (x, y, x + width, y + height))
                        number += 1


def _packed(mask: npt.NDArray[np.bool_]) -> str:
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def _unpacked(text: str, tokens: int) -> npt.NDArray[np.bool_]:
    """Return [N] bools.

    Raises:
        ValueError: the text has another number of bits.
    """
    packed = np.frombuffer(base64.b64decode(text), np.uint8)
    if len(packed) != -(-tokens // 8):
        raise ValueError(f"stored selection has {len(packed)} bytes for {tokens} visual tokens")
    return np.unpackbits(packed, count=tokens).astype(bool)


def joined(masks: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    """Join masks of a row's parts."""
    return np.concatenate(masks) if masks else np.zeros(0, bool)
