"""HiRED's shares of a budget among the tiles of an image."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from torch import Tensor

from uniprune.errors import UnsupportedError, UserError
from uniprune.pruning.fields import Share
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import Tiles, TowerLayer, View

from ._best_of import Ints, apportioned, cells_of
from ._counts import Counted


@dataclass(frozen=True, kw_only=True)
class OfTiles(Counted):
    """A method that compares the tiles of an image by two layers of the tower."""

    initial_layer: int | Share = 0.0
    vision_layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope in ("prompt", "grid"):
            raise UserError(
                f"{type(self).__name__} compares the tiles of one image, which scope={self.scope} joins or parts; use "
                "scope=image, or scope=tile for a budget per tile"
            )

    @property
    def vision_layers(self) -> tuple[TowerLayer, ...]:
        """The early and the late layer."""
        return (self.initial_layer, self.vision_layer)


def tile_counts(view: View, tiles: Tiles, early: Tensor, keep: int, alpha: float, strips: bool, exact: bool) -> Ints:
    """[T] how many of `keep` tokens each tile gets, by attention `early` [N]; waits for a GPU once.

    The overview has `alpha` of them. The others divide the rest by how many of the overview's most attended tokens are
    in their regions: `strips`, equal runs of its raster, or what they show. Not `exact`, shares are rounded down.
    """
    of = tiles.of.numpy()
    sizes, others = np.bincount(of), np.delete(np.arange(of.max() + 1), tiles.overview)
    whole, room = np.flatnonzero(of == tiles.overview), sizes[others]
    full = min(int(keep * alpha), len(whole))
    full = max(full, keep - int(room.sum())) if exact else full
    left = min(keep - full, int(room.sum()))
    hot = top_k(early[whole[0] : whole[-1] + 1], int(len(whole) * (1 - alpha))).cpu().numpy()
    regions = runs(view, whole, tiles.overview, len(others)) if strips else shown(view, of, others)
    flags = np.bincount(regions[hot], minlength=len(others))
    if exact or not len(hot):
        parts = apportioned(flags, room, left)
    else:
        parts = np.minimum((np.float32(flags) / np.float32(flags.sum()) * np.float32(left)).astype(np.int64), room)
    return np.insert(parts, tiles.overview, full)


def runs(view: View, whole: Ints, overview: int, count: int) -> Ints:
    """[n] which of `count` equal runs of the overview's raster each of its tokens, `whole` [n], is in."""
    cells, size = cells_of(view), prod(view.grids[-1 if overview else 0])
    return (cells[whole] - (sum(map(prod, view.grids)) - size if overview else 0)) * count // size


def shown(view: View, of: Ints, others: Ints) -> Ints:
    """[n] number, among the `others`, of the tile that shows what each token of the overview shows, if it is known."""
    if len(view.grids) != 2 or len(of) < sum(map(prod, view.grids)):
        raise UnsupportedError(
            f"the image has {len(others)} tiles in rows that the model is not told, or is not whole; use regions=strips"
        )
    (_, height, width), (_, rows, columns) = view.grids
    row, column = ((2 * np.arange(n) + 1) * most // (2 * n) for n, most in ((height, rows), (width, columns)))
    return np.searchsorted(others, of[height * width :].reshape(rows, columns)[row[:, None], column].ravel())
