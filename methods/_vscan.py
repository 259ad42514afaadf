"""VScan's windows, the best tokens of each, and means of tokens with those that are most like them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, complement, cosine_similarity, group_means, top_k
from uniprune.pruning.view import Grid, View

from ._best_of import Ints, best_of, cells_of

LLAVA, QWEN = 6, 4
"""Tokens on a side of a window."""


def best_of_windows(attention: Tensor, view: View, count: int, qwen: bool, exact: bool) -> Tensor:
    """Return `count` tokens by `attention` [N], spread over windows of the view's grids; no device is waited for.

    In LLaVA each window has its equal share, rounded down; the rest are the best elsewhere, or nothing if not `exact`.
    With `qwen` they are the best in which no window has more than its equal share, rounded up.
    """
    numbers = window_numbers(view.grids, QWEN if qwen else LLAVA)
    windows = numbers[cells_of(view)]
    sizes = np.bincount(windows, minlength=numbers.max() + 1)
    share = -(-count // len(sizes)) if qwen else count // len(sizes)
    shared = best_of(attention, windows, np.full(len(sizes), share))
    scores = attention.where(shared, -torch.inf) if qwen else attention.where(~shared, torch.inf)
    most = int(np.minimum(sizes, share).sum())
    return top_k(scores, count if exact and not qwen else min(count, most))


def window_numbers(grids: Sequence[Grid], side: int) -> Ints:
    """[N] number of each token's window in its frame; rows and columns that fill none belong to the last one."""
    numbers, first = [], 0
    for t, h, w in grids:
        rows, columns = max(1, h // side), max(1, w // side)
        row, column = (np.minimum(np.arange(n) // side, most - 1) for n, most in ((h, rows), (w, columns)))
        frame = (row[:, None] * columns + column).ravel()
        numbers.append((first + np.arange(t)[:, None] * rows * columns + frame).ravel())
        first += t * rows * columns
    return np.concatenate(numbers)


def with_dropped(tokens: Tensor, kept: Tensor) -> Tensor:
    """[k, D] means of each of the `kept` [k] of `tokens` [N, D] and the dropped ones that are most similar to it."""
    others = complement(len(tokens), kept)
    owner = cosine_similarity(tokens[others], tokens[kept]).argmax(-1)
    group = torch.cat((torch.arange(len(kept), device=kept.device), owner))
    return group_means(at_least_float32(tokens), group, len(kept), torch.cat((kept, others)))
