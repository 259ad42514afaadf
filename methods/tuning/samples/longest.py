"""Samples by length (Q-Tuning, arXiv 2509.23873, appendix B.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import SampleStrategy, SampleView, register_samples


@register_samples("longest", paper="arXiv 2509.23873")
@dataclass(frozen=True, kw_only=True)
class Longest(SampleStrategy):
    """Rank samples by length, prompt included.

    The paper "removed the longest sequences", which is the default; elsewhere the name means keeping them.

    Args:
        keep: "short" removes the longest samples, "long" keeps them.
    """

    keep: Literal["short", "long"] = "short"

    def select(self, view: SampleView, keep: int) -> Tensor:
        return top_k(view.lengths if self.keep == "long" else -view.lengths, keep)
