"""InfoBatch: drop some of the well-learned samples at random, weight the rest of them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from uniprune.pruning.functional import random_subset
from uniprune.tuning.strategy import Picks, SampleStrategy, SampleView, register_samples


@register_samples("infobatch", paper="arXiv 2303.04947")
@dataclass(frozen=True, kw_only=True)
class InfoBatch(SampleStrategy):
    """Drops samples below the batch's mean loss at random; those left get the dropped ones' weight (arXiv 2303.04947).

    Differs from the paper in: it compares a batch's current losses instead of an epoch's stored ones, and meets an
    exact count: where the samples below the mean do not suffice, others are dropped at random too, and where all are
    dropped nothing stands for them.

    Args:
        rescale: whether kept samples below the mean are weighted by the inverse of the share kept of them.
    """

    rescale: bool = True
    scores: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def select(self, view: SampleView, keep: int) -> Picks:
        """Random subset of the low losses, filled into the high ones."""
        loss = view.perplexity.log()
        low, high = ((side).nonzero()[:, 0] for side in (loss < loss.mean(), loss >= loss.mean()))
        drawn = [side[random_subset(len(side), len(side), view.generator)] for side in (high, low)]
        picks = torch.cat(drawn)[:keep]
        left = max(0, keep - len(high))
        weights = torch.ones(keep, dtype=torch.float64)
        if self.rescale and left:
            weights[len(high) :] = len(low) / left
        return Picks(picks, weights=weights)
