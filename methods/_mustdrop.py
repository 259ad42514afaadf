"""MustDrop's three decisions: which windows merge, which tokens are never dropped, which pass the filter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, inverse_norms, top_k, weighted_sums
from uniprune.pruning.view import Grid


def similar_windows(hidden: Tensor, grids: Sequence[Grid], window: int, similarity: float) -> Tensor:
    """[W, window ** 2] cells of the windows whose mean pairwise cosine is at least `similarity`, most similar first.

    `hidden` is [N, C] in raster order of `grids`. Cells at the edge that fill no window are left alone.
    """
    cells, start = [], 0
    for t, h, w in grids:
        grid = torch.arange(start, start + t * h * w, device=hidden.device).view(t, h, w)
        whole = grid[:, : h // window * window, : w // window * window]
        blocks = whole.reshape(t, h // window, window, w // window, window).transpose(2, 3)
        cells.append(blocks.reshape(-1, window**2))
        start += t * h * w
    windows, x = torch.cat(cells), at_least_float32(hidden)
    # The squared length of a sum of unit vectors is the sum of the cosines of all their pairs.
    total = weighted_sums(x, windows, inverse_norms(x))
    pairs = window**2 * (window**2 - 1)
    likeness = (total.square_().sum(1) - window**2) / max(1, pairs)
    order = top_k(likeness, len(likeness))
    return windows[order[likeness[order] >= similarity]]


def key_tokens(importance: Tensor, share: float) -> Tensor:
    """Indices of the top ceil(share x N) tokens."""
    return top_k(importance, math.ceil(share * len(importance)))


def dual_filter(attention: Tensor, global_threshold: float, individual_threshold: float) -> Tensor:
    """[N] False where attention [T, N] is low in sum (as a share of everything) and in its largest entry."""
    total = attention.sum(0)
    low = (total < global_threshold * total.sum()) & (attention.amax(0) < individual_threshold)
    return ~low
