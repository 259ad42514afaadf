"""HiPrune's choice by two layers, and neighbours on the token grid as it takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.pruning.view import Grid, View
from uniprune.pruning.view_batch import ViewBatch


def hierarchical(middle: Tensor, deep: Tensor, frames: Tensor, anchors: int, keep: int) -> Tensor:
    """[..., keep] ascending indices: anchors by `middle` [..., N], their neighbours, then the largest of `deep`."""
    found = top_k(middle, anchors)
    scores = deep.scatter(-1, around(found, frames.to(deep.device, non_blocking=True)), torch.finfo(deep.dtype).max)
    return top_k(scores.scatter(-1, found, torch.inf), keep).sort().values


def around(tokens: Tensor, frames: Tensor) -> Tensor:
    """[..., 4 T] neighbours of `tokens` [..., T] in their `frames`: left, right, above, below, clamped to the frame."""
    first, last, width = frames.gather(-1, tokens[..., None, :].expand(*frames.shape[:-1], -1)).unbind(-2)
    found = torch.stack((tokens - 1, tokens + 1, tokens - width, tokens + width), dim=-2)
    return found.clamp(first[..., None, :], last[..., None, :]).flatten(-2)


def frames(view: View | ViewBatch) -> Tensor:
    """[..., 3, N] first and last token of the frame that each token is in, and the frame's width; on the CPU."""
    if isinstance(view, ViewBatch):
        return torch.stack([torch.from_numpy(_frames(one.grids)) for one in view.views])
    return torch.from_numpy(_frames(view.grids))


def _frames(grids: Sequence[Grid]) -> NDArray[np.int64]:
    sizes = np.array([(h * w, w) for t, h, w in grids for _ in range(t)])
    ends = sizes[:, 0].cumsum()
    return np.stack((ends - sizes[:, 0], ends - 1, sizes[:, 1])).repeat(sizes[:, 0], axis=1)
