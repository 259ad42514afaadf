"""Paired tests on the same items, corrected for their number, and the ranks they leave possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from uniprune.results.statistics.differences import differences
from uniprune.results.statistics.estimate import Estimate
from uniprune.results.statistics.sources import SPREADLESS

LEVEL = 0.05
"""Chance of any false "different" within one family of comparisons."""


@dataclass(frozen=True)
class Comparison:
    """Two-sided test of a difference against zero.

    Attributes:
        difference: first minus second.
        low: lower end of its 95 % interval.
        high: upper end.
        p: chance of a difference as large under equality.
        test: name of the test.
    """

    difference: float
    low: float
    high: float
    p: float
    test: str


@dataclass(frozen=True)
class RankInterval:
    """A rank among several estimates, with those that are possible.

    Attributes:
        rank: by the estimates, 1 is best.
        low: best rank that the tests leave possible, for all estimates at once with 95 % confidence; None if there are
            too few clusters to test anything, as for the next two.
        high: worst such rank.
        tied: not significantly worse than the first.
    """

    rank: int
    low: int | None = None
    high: int | None = None
    tied: bool | None = None

    def __str__(self) -> str:
        """Return `2 [1–3] =`, with the sign if it is tied with the first, and `2` without tests."""
        return str(self.rank) + f" [{self.low}–{self.high}]" * (self.low is not None) + " =" * bool(self.tied)

    def columns(self) -> dict[str, int | None]:
        """Map the suffix of a CSV column to its number."""
        tied = None if self.tied is None else int(self.tied)
        return {"": self.rank, " low": self.low, " high": self.high, " tied": tied}


def paired(difference: Estimate) -> Comparison | None:
    """Test a difference by Student's t, where no cluster shows another one by the exact binomial bound.

    Interval and p are of one procedure: the interval excludes 0 where p is below 5 %. The share of draws beyond zero
    would be coarser than what a correction for hundreds of comparisons leaves of the level. None if there are too few
    clusters.
    """
    if not difference.enough:
        return None
    value = difference.value
    if difference.error:
        margin = difference.margin(LEVEL / 2)
        return Comparison(value, *difference.inside(value - margin, value + margin), difference.p(), "paired bootstrap")
    opposite = difference.scale[0] if value > 0 else difference.scale[1]
    others = value / (value - opposite) if abs(value) > SPREADLESS else 0.0
    p = min(1.0, 2 * (1 - others) ** difference.pooled)
    return Comparison(value, *difference.alike(1 - LEVEL), p, "exact binomial")


def holm(values: Sequence[float]) -> list[float]:
    """Correct a family of p values by Holm's step-down procedure.

    statsmodels has it too, but collects garbage in every call, which takes long with many records in memory.
    """
    order = np.argsort(values)
    stepped = np.maximum.accumulate(np.take(values, order) * np.arange(len(values), 0, -1)) if len(values) else values
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(stepped, 1)
    return [float(p) for p in corrected]


def standings(estimates: Sequence[Estimate]) -> list[RankInterval]:
    """Rank estimates, each with the ranks that all paired comparisons, Holm-corrected, leave possible.

    After Mogstad, Romano, Shaikh and Wilhelm (Review of Economic Studies, 2024): intervals of resampled ranks are too
    narrow where methods are close; those built from tests hold for all ranks at once. Where a pair has too few clusters
    for a test, all ranks are without them.
    """
    pairs = list(combinations(range(len(estimates)), 2))
    places = [1 + sum(other.value > one.value for other in estimates) for one in estimates]
    tests = [test for difference in differences(estimates) if (test := paired(difference)) is not None]
    if len(tests) < len(pairs):
        return [RankInterval(place) for place in places]
    better = {(i, j): 0 for i in range(len(estimates)) for j in range(len(estimates))}
    for (i, j), test, p in zip(pairs, tests, holm([test.p for test in tests]), strict=True):
        if p < LEVEL:
            better[(i, j) if test.difference > 0 else (j, i)] = 1
    first = max(range(len(estimates)), key=lambda i: estimates[i].value, default=0)
    everyone = range(len(estimates))
    return [
        RankInterval(
            rank=place,
            low=1 + sum(better[j, i] for j in everyone),
            high=len(estimates) - sum(better[i, j] for j in everyone),
            tied=not better[first, i],
        )
        for i, place in enumerate(places)
    ]
