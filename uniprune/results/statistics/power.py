"""Power: differences that a number of rows can show, and the test that two scores are equal within a margin."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from scipy import optimize, special

from uniprune.results.statistics.comparisons import LEVEL
from uniprune.results.statistics.estimate import FEWEST, Estimate
from uniprune.results.statistics.sources import spread, student

POWER = 0.8
"""Probability with which a difference is to be shown."""
LARGE = 1e5
"""Degrees of freedom above which Student's t is the normal distribution."""


def shown_with(difference: float, error: float, freedom: float, level: float = LEVEL) -> float:
    """Return the probability that the two-sided t test of a true difference is significant, in the right direction.

    Args:
        difference: the true one.
        error: its standard error.
        freedom: degrees of freedom of the error.
        level: of the test.
    """
    critical, shift = student(level / 2, freedom), difference / error
    if freedom > LARGE:
        return float(special.ndtr(shift - critical))
    return float(1 - special.nctdtr(freedom, shift, critical))


def detectable(error: float, freedom: float, level: float = LEVEL, power: float = POWER) -> float:
    """Return the smallest true difference that the two-sided t test shows with a probability.

    Args:
        error: standard error of the difference.
        freedom: its degrees of freedom.
        level: of the test.
        power: the probability.
    """
    most = 3 * student(level / 2, freedom) + 3  # shown in 99.7 % at 4 degrees of freedom, more often with more
    return error * float(optimize.brentq(lambda shift: shown_with(shift, 1.0, freedom, level) - power, 0.0, most))


def detectable_by(rows: int, discordance: float, level: float = LEVEL, power: float = POWER) -> float | None:
    """Return the smallest difference in accuracy that independent rows, right or wrong, show with a probability.

    With discordance p and difference d, the variance of a row's difference is p - d^2.

    Args:
        rows: their number.
        discordance: share of rows that one method answers right and the other wrong, 0-1.
        level: of the test.
        power: the probability.

    Returns:
        Points, 0-100. None if there are too few rows for a test, or if they cannot show that all discordant rows favour
        one method.
    """
    if rows < FEWEST:
        return None
    ratio = detectable(rows**-0.5, rows - 1, level, power)
    difference = float(ratio * (discordance / (1 + ratio**2)) ** 0.5)
    return 100 * difference if difference <= discordance else None


def detectable_on(difference: Estimate, times: float = 1.0, level: float = LEVEL) -> float | None:
    """Return the smallest difference that so many times the rows of a measured one would show, in its unit.

    The spread is that of the rows, so it holds for clusters and for headlines that are no mean, and for this choice of
    seeds.

    Returns:
        None if there are too few clusters for a test, or if no cluster shows a difference.
    """
    error, freedom = spread(difference.rows)
    if not error or difference.clusters * times < FEWEST:
        return None
    return detectable(error * times**-0.5, max(1.0, freedom * times), level)


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests that a difference is within a margin.

    Attributes:
        low: lower end of the 90 % interval.
        high: its upper end.
        shown: whether the interval is inside the margin: equal within it, at 5 %.
    """

    low: float
    high: float
    shown: bool


def equivalence(difference: Estimate, margin: float, level: float = LEVEL) -> Equivalence | None:
    """Test that a difference is within a margin on both sides (TOST); None if there are too few clusters.

    Where every cluster shows the same difference, the interval is the exact binomial one.
    """
    if not difference.enough:
        return None
    if difference.error:
        half = difference.margin(level)
        low, high = difference.value - half, difference.value + half
    else:
        low, high = difference.alike(1 - 2 * level)
    return Equivalence(low, high, isfinite(low) and isfinite(high) and -margin < low and high < margin)
