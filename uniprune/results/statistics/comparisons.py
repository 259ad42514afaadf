"""Paired tests on the same items, corrected for their number, and the ranks they leave possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar
from statsmodels.stats.multitest import multipletests

from uniprune.results.statistics.estimate import Estimate

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
        low: best rank that the tests leave possible, for all estimates at once with 95 % confidence.
        high: worst such rank.
        tied: not significantly worse than the first.
    """

    rank: int
    low: int
    high: int
    tied: bool

    def __str__(self) -> str:
        """Return `2 [1–3] =`, with the sign if it is tied with the first."""
        return f"{self.rank} [{self.low}–{self.high}]" + " =" * self.tied

    def columns(self) -> dict[str, int]:
        """Map the suffix of a CSV column to its number."""
        return {"": self.rank, " low": self.low, " high": self.high, " tied": int(self.tied)}


def paired(difference: Estimate) -> Comparison:
    """Test a difference against its bootstrap standard error, by Student's t with clusters - 1 degrees of freedom.

    The share of draws beyond zero would be coarser than what a correction for hundreds of comparisons leaves of the
    level. Where every cluster shows the same difference, the sign test over clusters is used. A single cluster decides
    nothing.
    """
    value, n = difference.value, difference.clusters
    # The bootstrap's variance is (n - 1) / n of the unbiased one.
    error = difference.error * (n / (n - 1)) ** 0.5 if n > 1 else 0.0
    if error > 1e-9:
        width = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
        p = 2 * float(stats.t.sf(abs(value) / error, n - 1))
        return Comparison(value, value - width, value + width, p, "paired bootstrap")
    p = min(1.0, 2 * 0.5**n) if abs(value) > 1e-9 else 1.0
    return Comparison(value, value, value, p, "sign test")


def mcnemar(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the exact p of McNemar's test on credits, 0 or 1, of the same items: only those that differ count."""
    gained = sum(first[item] > second[item] for item in first)
    lost = sum(first[item] < second[item] for item in first)
    return float(exact_mcnemar([[0, gained], [lost, 0]], exact=True).pvalue) if gained + lost else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Correct a family of p values by Holm's step-down procedure."""
    return [float(p) for p in multipletests(values, method="holm")[1]] if values else []


def standings(estimates: Sequence[Estimate]) -> list[RankInterval]:
    """Rank estimates, each with the ranks that all paired comparisons, Holm-corrected, leave possible.

    After Mogstad, Romano, Shaikh and Wilhelm (Review of Economic Studies, 2024): intervals of resampled ranks are too
    narrow where methods are close; those built from tests hold for all ranks at once.
    """
    pairs = list(combinations(range(len(estimates)), 2))
    tests = [paired(estimates[i] - estimates[j]) for i, j in pairs]
    better = {(i, j): 0 for i in range(len(estimates)) for j in range(len(estimates))}
    for (i, j), test, p in zip(pairs, tests, holm([test.p for test in tests]), strict=True):
        if p < LEVEL:
            better[(i, j) if test.difference > 0 else (j, i)] = 1
    first = max(range(len(estimates)), key=lambda i: estimates[i].value, default=0)
    everyone = range(len(estimates))
    return [
        RankInterval(
            rank=1 + sum(other.value > one.value for other in estimates),
            low=1 + sum(better[j, i] for j in everyone),
            high=len(estimates) - sum(better[i, j] for j in everyone),
            tied=not better[first, i],
        )
        for i, one in enumerate(estimates)
    ]
