"""HoloV's runs of an image's raster, and the shares of a budget among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, top_k

Array = NDArray[Any]
SCALE = 1000 * (1 + 0.09)
"""Of the mean attention of a run: the released factor, and what the term of similarities adds to it."""
LEAST = 1e-6
"""Added to the sum of scores, as released."""


def most_attended(attention: Tensor, crops: int | None, keep: int, refill: bool) -> Tensor:
    """[..., keep] most attended tokens of every run, by `attention` [..., N]; fewer of one image without `refill`.

    `crops` is the number of runs; None for as many as in the released code for Qwen2.5-VL. Waits for a GPU once.
    """
    count = attention.shape[-1]
    sizes = crop_sizes(count, crops or max(1, int(1024 / 576 * count / keep)))
    means = [run.mean(-1) * (SCALE if run.shape[-1] > 1 else 1) for run in attention.split(sizes, -1)]
    scores = at_least_float32(torch.stack(means, -1)).cpu().numpy()
    counts = [shared_out(own, sizes, keep, refill) for own in scores.reshape(-1, len(sizes))]
    return picks(attention, np.array(sizes), np.array(counts).reshape(scores.shape))


def crop_sizes(tokens: int, crops: int) -> list[int]:
    """Return the sizes of the runs, longer ones first, empty ones left out."""
    size, longer = divmod(tokens, crops)
    return [size + (crop < longer) for crop in range(crops) if size or crop < longer]


def shared_out(scores: Array, sizes: Sequence[int], keep: int, refill: bool) -> Array:
    """Return how many tokens each run keeps, by its share of the `scores`.

    Rounded down first, then one each in the order of shares. With `refill` what exceeds a run's size is shared out
    again among the others until all is spent.
    """
    room = np.array(sizes)
    counts: Array = np.zeros_like(room)
    weights = scores / (scores.sum() + np.float32(LEAST))
    while True:
        left, full = keep - int(counts.sum()), counts >= room
        among = np.where(full, np.float32(0), weights)
        shares = weights * left if left == keep else among * left / max(among.sum(), np.float32(LEAST))
        given = shares.astype(np.int64)
        order = np.argsort(-np.where(full, -1, shares), kind="stable")
        given[order[: min(left - int(given.sum()), int((~full).sum()))]] += 1
        counts = np.minimum(counts + given, room)
        if not refill or int(counts.sum()) == keep:
            return counts


def picks(attention: Tensor, sizes: Array, counts: Array) -> Tensor:
    """[..., keep] the `counts` [..., R] most attended tokens of every run, best first; whole runs in raster order."""
    attention = at_least_float32(attention)
    every = torch.arange(attention.shape[-1], device=attention.device)
    number, whole = np.repeat(np.arange(len(sizes)), sizes), np.repeat(sizes == counts, sizes, axis=-1)
    taken = np.arange(len(number)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < np.repeat(counts, sizes, axis=-1)
    places = taken.nonzero()[-1].reshape(*counts.shape[:-1], -1)
    on_device = (torch.from_numpy(one).to(attention.device, non_blocking=True) for one in (number, whole, places))
    runs, raster, kept = on_device
    best = top_k(attention.where(~raster, -every.to(attention)), attention.shape[-1])
    grouped = best.gather(-1, runs[best].argsort(stable=True))
    return grouped.gather(-1, kept)
