"""Content of a drawing of kept tokens: one row's pictures, and a panel per method, ratio and pruning point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from uniprune.results.kept_tokens import Selections, ShownGrid

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
MARGIN = 1e-3
"""Share of a picture by which areas may overlap through rounding."""


@dataclass(frozen=True)
class Slice:
    """One grid, or one step in time of it, over one picture.

    Attributes:
        first: number of its first token in the row.
        rows, columns: its size.
        area: left, top, right, bottom in shares of the picture.
        picture: number of the picture.
    """

    first: int
    rows: int
    columns: int
    area: tuple[float, float, float, float]
    picture: int

    @property
    def tokens(self) -> int:
        """Number of cells."""
        return self.rows * self.columns

    def overlaps(self, other: Slice) -> bool:
        """Check whether two slices show a part of a picture twice."""
        (left, top, right, bottom), (x0, y0, x1, y1) = self.area, other.area
        return min(right, x1) - max(left, x0) > MARGIN and min(bottom, y1) - max(top, y0) > MARGIN


@dataclass(frozen=True)
class Layer:
    """Slices that cover parts of one picture, none of them twice.

    An image that is cut into tiles has two: the tiles, and the tile that shows all of it.
    """

    picture: int
    slices: tuple[Slice, ...]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the picture with the padding that tokens show."""
        edges = np.array([(0.0, 0.0, 1.0, 1.0), *(one.area for one in self.slices)])
        (left, top), (right, bottom) = edges[:, :2].min(0), edges[:, 2:].max(0)
        return float(left), float(top), float(right), float(bottom)


def layers(selections: Selections) -> list[list[Layer]]:
    """Return the layers of every picture, the finest first."""
    found: list[list[Layer]] = []
    slices = list(_slices(selections.grids))
    for picture in range(selections.pictures):
        parts: list[list[Slice]] = []
        for one in (each for each in slices if each.picture == picture):
            free = next((part for part in parts if not any(one.overlaps(other) for other in part)), None)
            if free is None:
                parts.append([one])
            else:
                free.append(one)
        parts.sort(key=lambda part: -sum(one.tokens for one in part))
        found.append([Layer(picture, tuple(part)) for part in parts])
    return found


def _slices(grids: Sequence[ShownGrid]) -> Iterator[Slice]:
    first = 0
    for grid in grids:
        _, rows, columns = grid.size
        for picture in grid.pictures:
            yield Slice(first, rows, columns, grid.area, picture)
            first += rows * columns


@dataclass(frozen=True)
class Panel:
    """A drawing of one choice of tokens, or of a map over them.

    Attributes:
        caption: lines above it.
        selections: the row's tokens.
        kept: [N] True at tokens that are left.
        merged: [N] True at kept tokens that a method replaced; None if there are none, or it is unknown.
        heat: [N] values of a map to draw in place of the choice, NaN where there is none; None without.
    """

    caption: tuple[str, ...]
    selections: Selections
    kept: Bools
    merged: Bools | None = None
    heat: Floats | None = None


@dataclass(frozen=True)
class Sheet:
    """Panels of one row.

    Attributes:
        title: lines above all panels.
        pictures: the row's images, then the frames of its videos, as the model's processor got them.
        rows: panels that belong together, in the order of their ratios, say.
    """

    title: tuple[str, ...]
    pictures: tuple[Image.Image, ...]
    rows: tuple[tuple[Panel, ...], ...]
