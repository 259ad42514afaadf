"""Random samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import random_subset
from uniprune.tuning.strategy import SampleStrategy, SampleView, register_samples


@register_samples("random")
@dataclass(frozen=True, kw_only=True)
class Random(SampleStrategy):
    """Keep samples uniformly at random."""

    stochastic: ClassVar[bool] = True

    def select(self, view: SampleView, keep: int) -> Tensor:
        return random_subset(len(view.lengths), keep, view.generator)
