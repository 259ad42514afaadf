"""The best tokens of every group, where a group is part of an image."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View

Ints = NDArray[np.int64]


def cells_of(view: View) -> Ints:
    """[N] cells of the tokens, in the grids; a GPU is waited for only if some are gone."""
    every = np.arange(sum(map(prod, view.grids)))
    return every if len(view.tokens) == len(every) else view.cells.cpu().numpy()


def best_of(scores: Tensor, group: Ints, counts: Ints) -> Tensor:
    """[N] True at the `counts` [G] tokens of each `group` [N] with the best of `scores` [N]; no device is waited for.

    Of equal scores the first is best.
    """
    ranked, number = top_k(scores, len(scores)), torch.from_numpy(group).to(scores.device)
    grouped, sizes = ranked[number[ranked].argsort(stable=True)], np.bincount(group, minlength=len(counts))
    within = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < np.repeat(counts, sizes)
    taken = torch.zeros_like(grouped, dtype=torch.bool)
    return taken.index_copy(0, grouped, torch.from_numpy(within).to(taken.device))


def apportioned(weights: Ints, room: Ints, total: int) -> Ints:
    """[G] parts of `total` by `weights` [G]: exact shares rounded down, one more by largest remainders.

    What a part has no `room` [G] for is shared out again among the others, until all is spent or no room is left.
    Without any weight among those with room they count alike.
    """
    counts = np.zeros_like(room)
    while left := min(total, int(room.sum())) - int(counts.sum()):
        among = np.where(counts < room, weights, 0)
        among = among if among.any() else (counts < room).astype(np.int64)
        given, rest = np.divmod(among * left, among.sum())
        given[np.argsort(-rest, kind="stable")[: left - int(given.sum())]] += 1
        counts = np.minimum(counts + given, room)
    return counts
