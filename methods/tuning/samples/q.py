"""Samples of Q-Tuning (arXiv 2509.23873): misconceptions and calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from uniprune.errors import UserError
from uniprune.pruning.fields import Count
from uniprune.pruning.functional import top_k
from uniprune.tuning.plane import KNOWN, NOISE, Bisection, Corner, bisect, supplement, within
from uniprune.tuning.strategy import Picks, SampleStrategy, SampleView, register_samples


@register_samples(
    "q",
    paper="arXiv 2509.23873",
    deviations=[
        "The tightest plane of the bisection that holds enough samples, not the last one: `bisection`.",
        "If the kept quadrants hold too many samples, those of the lowest supplement score are dropped.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class QuadrantSamples(SampleStrategy):
    """Keep the quadrants Q2 (wrong and sure) and Q4 (right and unsure) of the batch's error-uncertainty plane.

    Thresholds are quantiles found by bisection; the supplement score then makes the count exact.

    Args:
        drop: quadrants to drop, three at most (Tables 4 and 15 of the paper compare subsets).
        iterations: bisection steps; the paper needs fewer than 10.
        bisection: plane that it returns; "algorithm 1" and "equation 6" are the paper's two rules, under which a batch
            of eight mostly has empty quadrants, and the supplement score chooses from everything.
    """

    drop: tuple[Corner, ...] = (NOISE, KNOWN)
    iterations: Count = 10
    bisection: Bisection = "tightest"
    scores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if {*self.drop} >= {1, 2, 3, 4}:
            raise UserError(f"drop {self.drop!r} must leave one of the quadrants 1, 2, 3, 4")

    def select(self, view: SampleView, keep: int) -> Picks:
        kept = {1, 2, 3, 4} - set(self.drop)
        plane = bisect(view.perplexity, view.entropy, view.ratio, kept, self.iterations, self.bisection)
        best_first = top_k(supplement(view.perplexity, view.entropy), len(view.lengths))
        dropped = ~within(plane.quadrants, kept)[best_first]
        return Picks(best_first[dropped.byte().argsort(stable=True)][:keep], plane.quadrants)
