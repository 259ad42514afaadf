"""Neighbours on the token grid as HiPrune takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uniprune.pruning.view import Grid


def around(tokens: Tensor, grids: Sequence[Grid]) -> Tensor:
    """[4 T] neighbours of `tokens` [T] in the frames of the grids: left, right, above, below, clamped to the frame."""
    frames = torch.tensor([(h * w, w) for t, h, w in grids for _ in range(t)])
    ends, width = (column.repeat_interleave(frames[:, 0]) for column in (frames[:, 0].cumsum(0), frames[:, 1]))
    first = ends - frames[:, 0].repeat_interleave(frames[:, 0])
    first, ends, width = (column.to(tokens.device)[tokens] for column in (first, ends, width))
    found = torch.stack((tokens - 1, tokens + 1, tokens - width, tokens + width))
    return found.clamp(first, ends - 1).flatten()
