"""The walks of PixelPrune over an image's tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Metric = Literal["max", "mae", "rmse", "exact"]
Same = Callable[[Tensor, Tensor], Tensor]


def comparison(pixels: Tensor, metric: Metric, tau: float) -> Same:
    """Return the function that compares tokens of `pixels` [N, P], given by their numbers [m], with others [m]."""

    def same(one: Tensor, other: Tensor) -> Tensor:
        gap = (pixels[one] - pixels[other]).abs()
        if metric == "rmse":
            return gap.square().mean(-1).sqrt() <= tau
        return (gap.mean(-1) if metric == "mae" else gap.amax(-1)) <= (0 if metric == "exact" else tau)

    return same


def predicted(height: int, width: int, same: Same, anchored: bool) -> Tensor:
    """Return [N] False at tokens that equal what their left, upper and upper left neighbours predict.

    Tokens of one diagonal do not depend on each other. With `anchored` a dropped token counts as its prediction.
    """
    source = torch.arange(height * width).view(height, width)
    stays = torch.ones(height, width, dtype=torch.bool)
    for diagonal in range(1, height + width - 1):
        rows = torch.arange(max(0, diagonal - width + 1), min(diagonal, height - 1) + 1)
        columns = diagonal - rows
        up, left = (rows - 1).clamp(min=0), (columns - 1).clamp(min=0)
        a, b, c = source[rows, left], source[up, columns], source[up, left]
        above = (columns == 0) | ((rows > 0) & same(c, a) & ~same(c, b))
        guess = torch.where(above, b, a)
        own = rows * width + columns
        stays[rows, columns] = differs = ~same(own, guess)
        if anchored:
            source[rows, columns] = torch.where(differs, own, guess)
    return stays.flatten()


def walked(path: Tensor, same: Same) -> Tensor:
    """Return [N] False at tokens that, along a path [N], equal the last one that stays."""
    stays = torch.zeros(len(path), dtype=torch.bool)
    last = path[:1]
    stays[last] = True
    for here in path[1:].split(1):
        if not same(here, last):
            stays[here], last = True, here
    return stays
