"""InfoBatch (arXiv 2303.04947)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from uniprune.pruning.functional import random_subset
from uniprune.tuning.strategy import Picks, SampleStrategy, SampleView, register_samples


@register_samples(
    "infobatch",
    paper="arXiv 2303.04947",
    deviations=[
        "Compares the current losses of a batch; the paper compares the stored losses of an epoch.",
        "Meets an exact count: where the samples below the mean do not suffice, others are dropped at random too, and "
        "where all of them are dropped, no weight replaces them.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class InfoBatch(SampleStrategy):
    """Drop samples below the batch's mean loss at random; give their weight to the kept ones below it.

    Args:
        rescale: whether kept samples below the mean are weighted by the inverse of their kept share.
    """

    rescale: bool = True
    scores: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def select(self, view: SampleView, keep: int) -> Picks:
        loss = view.perplexity.log()
        low, high = (side.nonzero()[:, 0] for side in (loss < loss.mean(), loss >= loss.mean()))
        shuffled = [side[random_subset(len(side), len(side), view.generator)] for side in (high, low)]
        kept_low = max(0, keep - len(high))
        weights = torch.ones(keep, dtype=torch.float64)
        if self.rescale and kept_low:
            weights[len(high) :] = len(low) / kept_low
        return Picks(torch.cat(shuffled)[:keep], weights=weights)
