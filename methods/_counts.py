"""Shared by methods whose release misses the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uniprune.pruning.base import PreLLM, Stage

Counts = Literal["exact", "release"]


@dataclass(frozen=True, kw_only=True)
class Counted(PreLLM):
    """A method with two ways to round the shares of its budget.

    Args:
        counts: "exact" meets the budget, "release" keeps as many tokens as the released code, and `exact` is False.
    """

    counts: Counts = "exact"

    @property
    def exact(self) -> bool:
        """False with the counts of the release."""
        return self.counts == "exact"

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return one pruning point; none at ratio 1, where a release's own counts may be smaller."""
        return super().schedule(num_layers) if self.ratio < 1 else ()
