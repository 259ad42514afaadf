"""Average pooling of token grids to any number of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from uniprune.pruning.functional import group_means
from uniprune.pruning.view import Grid


def pool_grid(features: Tensor, grids: Sequence[Grid], keep: int) -> tuple[Tensor, Tensor]:
    """Average pooling to any number of tokens: every frame is cut into blocks that are as square as the grid allows.

    Args:
        features: [N, C] in raster order, grid after grid.
        grids: (t, h, w) of every grid.
        keep: blocks in all, at most N.

    Returns:
        [keep] the token in the middle of each block, ascending by block, and [keep, C] the blocks' means. A quarter of
        an even square grid gives exactly 2 x 2 blocks. Frames whose share of `keep` rounds to nothing are dropped.
        O(N C).
    """
    block = grid_blocks(grids, keep).to(features.device)
    tokens = (block >= 0).nonzero()[:, 0]
    block = block[tokens]
    size = block.bincount(minlength=keep)
    middle = tokens[block.argsort(stable=True)][size.cumsum(0) - size + (size - 1) // 2]
    return middle, group_means(features[tokens], block, keep)


def grid_blocks(grids: Sequence[Grid], keep: int) -> Tensor:
    """[N] number of the block, 0..keep-1, that each token of the grids belongs to; -1 where a frame got none. O(N)."""
    frames = [(h, w) for t, h, w in grids for _ in range(t)]
    total = sum(h * w for h, w in frames)
    blocks, done, first = [], 0, 0
    for h, w in frames:
        done += h * w
        last = (2 * keep * done + total) // (2 * total)
        blocks.append(_frame_blocks(h, w, last - first) + first if last > first else torch.full((h * w,), -1))
        first = last
    return torch.cat(blocks)


def _frame_blocks(height: int, width: int, count: int) -> Tensor:
    """[height * width] block of each cell of a frame: bands of rows, each cut into columns."""
    bands = max(1, round(math.sqrt(count * height / width)))
    bands = max(math.ceil(count / width), min(bands, height, count))
    band = torch.arange(height) * bands // height
    first = band * count // bands
    columns = (band + 1) * count // bands - first
    return (first[:, None] + torch.arange(width) * columns[:, None] // width).flatten()
