"""HoloV's runs of an image's raster, and the shares of a budget among them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uniprune.pruning.functional import top_k

SCALE = 1000 * (1 + 0.09)
"""Of the mean attention of a run: the released factor, and what the term of similarities adds to it."""
LEAST = 1e-6
"""Added to the sum of scores, as released."""


def crop_sizes(tokens: int, crops: int) -> list[int]:
    """Return the sizes of the runs, longer ones first, empty ones left out."""
    size, longer = divmod(tokens, crops)
    return [size + (crop < longer) for crop in range(crops) if size or crop < longer]


def shared_out(attention: Tensor, sizes: Sequence[int], keep: int, refill: bool) -> list[int]:
    """Return how many tokens each run keeps, by its share of the `attention` [N].

    Rounded down first, then one each in the order of shares. With `refill` what exceeds a run's size is shared out
    again among the others until all is spent.
    """
    scores = torch.stack([run.mean() * (SCALE if len(run) > 1 else 1) for run in attention.split(list(sizes))]).cpu()
    room = torch.tensor(sizes)
    counts, weights = torch.zeros_like(room), scores / (scores.sum() + LEAST)
    while True:
        left, open_ = keep - int(counts.sum()), counts < room
        shares = weights * left if left == keep else weights * open_ * left / (weights * open_).sum().clamp(min=LEAST)
        given = shares.long()
        first = top_k(shares.masked_fill(~open_, -1), min(left - int(given.sum()), int(open_.sum())))
        given[first] += 1
        counts = torch.minimum(counts + given, room)
        if not refill or int(counts.sum()) == keep:
            return [int(count) for count in counts]


def picks(attention: Tensor, sizes: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Return the indices of the most attended tokens of every run, best first; those of whole runs in raster order."""
    runs, start = [], 0
    for scores, size, count in zip(attention.split(list(sizes)), sizes, counts, strict=True):
        best = torch.arange(size, device=scores.device) if count == size else top_k(scores, count)
        runs.append(best + start)
        start += size
    return torch.cat(runs)
