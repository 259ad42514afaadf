"""Highest entropy (Q-Tuning, arXiv 2509.23873, appendix B.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import SampleStrategy, SampleView, register_samples


@register_samples("entropy", paper="arXiv 2509.23873")
@dataclass(frozen=True, kw_only=True)
class Entropy(SampleStrategy):
    """Keep the samples of highest mean token entropy."""

    scores: ClassVar[bool] = True

    def select(self, view: SampleView, keep: int) -> Tensor:
        return top_k(view.entropy, keep)
