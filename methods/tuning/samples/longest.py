"""Samples by length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import SampleStrategy, SampleView, register_samples


@register_samples("longest")
@dataclass(frozen=True, kw_only=True)
class Longest(SampleStrategy):
    """Ranks samples by length, prompt included.

    The Q-Tuning paper (appendix B.3) "removed the longest sequences"; elsewhere the name means keeping them. The
    default follows its text.

    Args:
        keep: "short" removes the longest samples, "long" keeps them.
    """

    keep: Literal["short", "long"] = "short"

    def select(self, view: SampleView, keep: int) -> Tensor:
        """The shortest or the longest."""
        return top_k(view.lengths if self.keep == "long" else -view.lengths, keep)
