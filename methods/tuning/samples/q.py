"""Q-Tuning's choice of samples: misconceptions and calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from uniprune.errors import UserError
from uniprune.pruning.functional import top_k
from uniprune.tuning.plane import KNOWN, NOISE, bisect, supplement, within
from uniprune.tuning.strategy import Picks, SampleStrategy, SampleView, register_samples


@register_samples("q")
@dataclass(frozen=True, kw_only=True)
class QuadrantSamples(SampleStrategy):
    """Keeps the quadrants Q2 (wrong and sure) and Q4 (right and unsure) of the batch's error-uncertainty plane.

    Thresholds are quantiles found by bisection; the count is then made exact by the supplement score, which adds the
    best of the rest or, which the paper does not mention, leaves out the worst of the chosen.

    Args:
        drop: quadrants to drop (Tables 4 and 15 of the paper compare subsets).
        iterations: bisection steps.
    """

    drop: tuple[int, ...] = (NOISE, KNOWN)
    iterations: int = 10
    scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not set(self.drop) < {1, 2, 3, 4}:
            raise UserError(f"drop {self.drop!r} must name some of the quadrants 1, 2, 3, 4, but not all")
        if self.iterations < 1:
            raise UserError(f"iterations {self.iterations!r} must be at least 1; the paper needs fewer than 10")

    def select(self, view: SampleView, keep: int) -> Picks:
        """Chosen quadrants first, then by supplement score."""
        kept = {1, 2, 3, 4} - set(self.drop)
        plane = bisect(view.perplexity, view.entropy, view.ratio, kept, self.iterations)
        best_first = top_k(supplement(view.perplexity, view.entropy), len(view.lengths))
        elsewhere = ~within(plane.quadrants, kept)[best_first]
        return Picks(best_first[elsewhere.byte().argsort(stable=True)][:keep], plane.quadrants)
