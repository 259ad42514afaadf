"""HoloV's runs of an image's raster, and the shares of a budget among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, top_k

SCALE = 1000 * (1 + 0.09)
"""Of the mean attention of a run: the released factor, and what the term of similarities adds to it."""
LEAST = 1e-6
"""Added to the sum of scores, as released."""


def crop_sizes(tokens: int, crops: int) -> list[int]:
    """Return the sizes of the runs, longer ones first, empty ones left out."""
    size, longer = divmod(tokens, crops)
    return [size + (crop < longer) for crop in range(crops) if size or crop < longer]


def shared_out(attention: Tensor, sizes: Sequence[int], keep: int, refill: bool) -> list[int]:
    """Return how many tokens each run keeps, by its share of the `attention` [N]; waits for a GPU once.

    Rounded down first, then one each in the order of shares. With `refill` what exceeds a run's size is shared out
    again among the others until all is spent.
    """
    means = [run.mean() * (SCALE if len(run) > 1 else 1) for run in attention.split(list(sizes))]
    scores, room = at_least_float32(torch.stack(means)).cpu().numpy(), np.array(sizes)
    counts, weights = np.zeros_like(room), scores / (scores.sum() + np.float32(LEAST))
    while True:
        left, full = keep - int(counts.sum()), counts >= room
        among = np.where(full, np.float32(0), weights)
        shares = weights * left if left == keep else among * left / max(among.sum(), np.float32(LEAST))
        given = shares.astype(np.int64)
        order = np.argsort(-np.where(full, -1, shares), kind="stable")
        given[order[: min(left - int(given.sum()), int((~full).sum()))]] += 1
        counts = np.minimum(counts + given, room)
        if not refill or int(counts.sum()) == keep:
            return list(map(int, counts))


def picks(attention: Tensor, sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Return the indices of the most attended tokens of every run, best first; those of whole runs in raster order."""
    attention = at_least_float32(attention)
    every = torch.arange(len(attention), device=attention.device)
    sized, taken = np.array(sizes), np.array(counts)
    number, whole = np.repeat(np.arange(len(sized)), sized), np.repeat(sized == taken, sized)
    runs, raster = (torch.from_numpy(one).to(attention.device) for one in (number, whole))
    best = top_k(attention.where(~raster, -every.to(attention)), len(attention))
    grouped = best[runs[best].argsort(stable=True)]
    places = np.arange(len(number)) - np.repeat(np.cumsum(sized) - sized, sized) < np.repeat(taken, sized)
    return grouped[torch.from_numpy(places.nonzero()[0]).to(attention.device)]
