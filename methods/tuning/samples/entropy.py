"""Samples the model is least sure about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import SampleStrategy, SampleView, register_samples


@register_samples("entropy")
@dataclass(frozen=True, kw_only=True)
class Entropy(SampleStrategy):
    """Keeps the samples of highest mean token entropy (Q-Tuning, appendix B.3)."""

    scores: ClassVar[bool] = True

    def select(self, view: SampleView, keep: int) -> Tensor:
        """Highest entropy."""
        return top_k(view.entropy, keep)
