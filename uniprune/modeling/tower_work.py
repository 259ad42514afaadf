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

    def __hash__(self) -> int:
        """Return the same for equal work."""

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


@dataclass(frozen=True)
class MergedTokens:
    """The work on an image whose tokens are merged between attention and MLP of every block from one on.

    Attributes:
        first: the first of these blocks.
        lengths: tokens that enter the first one, and that leave it and each later one, a CLS token among them.
    """

    first: int
    lengths: tuple[int, ...]

    def spans(self, adapter: ModelAdapter, grid: Grid, block: int) -> tuple[Sequence[int], int]:
        """Return the one range of the tokens that enter the block, and those that are left for its MLP."""
        whole = adapter.attention_spans(grid, block)
        number = block - self.first
        if not 0 <= number < len(self.lengths) - 1:
            return whole, sum(whole)
        return self.lengths[number : number + 1], self.lengths[number + 1]
