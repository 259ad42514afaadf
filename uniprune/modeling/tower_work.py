"""Work of the vision tower on one image of which tokens are dropped or merged inside the tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.view import Grid


class TowerWork(Protocol):
    """Tokens of one encoded image in every block of the tower."""

    def spans(self, adapter: ModelAdapter, grid: Grid, block: int) -> tuple[Sequence[int], int]:
        """Return the lengths of the ranges that attend to each other in a block, and the tokens after its attention."""


@dataclass(frozen=True)
class WholeImage:
    """The work on an image that stays whole."""

    def spans(self, adapter: ModelAdapter, grid: Grid, block: int) -> tuple[Sequence[int], int]:
        """Return the ranges of the whole image."""
        lengths = adapter.attention_spans(grid, block)
        return lengths, sum(lengths)


@dataclass(frozen=True)
class DroppedPatches:
    """The work on an image that loses tokens before a block.

    Attributes:
        first: the first block with fewer tokens.
        last: the last one; later blocks run on as many places as without pruning.
        kept: numbers of the visual tokens that stay, of the image's own.
    """

    first: int
    last: int
    kept: tuple[int, ...]

    def spans(self, adapter: ModelAdapter, grid: Grid, block: int) -> tuple[Sequence[int], int]:
        """Return the ranges with the patches that are left; without those that have none."""
        whole = adapter.attention_spans(grid, block)
        if not self.first <= block <= self.last:
            return whole, sum(whole)
        patches = adapter.patch_places([grid]).numpy()[np.array(self.kept, np.int64)].ravel()
        classes = int(adapter.has_cls)
        rows = np.sort(np.concatenate((np.arange(classes), classes + patches)))
        left = np.diff(np.searchsorted(rows, np.cumsum([0, *whole])))
        return [int(length) for length in left if length], len(rows)
