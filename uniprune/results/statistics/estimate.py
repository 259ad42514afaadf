"""Estimates with their sources of chance, from which differences, ratios and means of them get intervals too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import hypot, inf, isfinite, log10
from zlib import crc32

import numpy as np
from scipy import optimize, special

from uniprune.results.statistics.headline import Array
from uniprune.results.statistics.sources import Source, Sources, Spread, spread, student, summed, together

RESAMPLES = 2000
"""Bootstrap resamples: the ends of a 95 % interval move by a few hundredths of its width with the seed."""
FEWEST = 5
"""Fewest clusters of a benchmark, and of a category where the headline is a mean of such, for an interval or a test.

One row a benchmark has no variance. Of two to four, most benchmarks show none or one that says little: the interval of
four rows is the whole scale. docs/statistics.md has the simulations.
"""
CONFIDENCE = 0.95
LEAST_TAIL = 1e-30
"""Probability below which a tail is not computed."""

Scale = tuple[float, float]
SHARE: Scale = (0.0, 100.0)
POSITIVE: Scale = (0.0, inf)


@dataclass(frozen=True)
class Estimate:
    """A number with what it would have been on other rows and other seeds.

    Attributes:
        value: the number.
        rows: benchmark, or category of one -> the chance of its rows; draws of one name are the same rows.
        seeds: runs -> the chance of their seeds.
        scale: lowest and highest value that is possible.
    """

    value: float
    rows: Sources
    seeds: Sources = field(default_factory=dict)
    scale: Scale = (-inf, inf)

    @property
    def clusters(self) -> int:
        """Clusters of the smallest benchmark or category; 0 if there are no rows to resample."""
        return min((source.units for source in self.rows.values()), default=0)

    @property
    def enough(self) -> bool:
        """True with enough clusters for an interval or a test."""
        return self.clusters >= FEWEST

    @cached_property
    def spreads(self) -> tuple[Spread, Spread]:
        """Spread by the rows, and by the seeds."""
        return spread(self.rows), spread(self.seeds)

    @property
    def error(self) -> float:
        """Standard error; 0 if no source causes more than rounding."""
        return hypot(*(one.error for one in self.spreads))

    @property
    def deviations(self) -> Array:
        """[B] deviations by all sources together."""
        return together(self.rows) + together(self.seeds)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Return the percentile interval, widened as Student's t is against the normal, inside the scale.

        None if there are too few clusters, or if no resample differs on a scale without end.
        """
        if not self.enough:
            return None
        if not self.error:
            low, high = self.alike(confidence)
            return (low, high) if isfinite(low) and isfinite(high) else None
        tail = (1 - confidence) / 2
        rows, seeds = (
            together(some) * (student(tail, one.freedom) / student(tail, inf))
            for some, one in zip((self.rows, self.seeds), self.spreads, strict=True)
        )
        low, high = self.value + np.quantile(rows + seeds, (tail, 1 - tail))
        return self.inside(float(low), float(high))

    def margin(self, tail: float) -> float:
        """Return half the width of the symmetric interval with a tail on each side.

        That of the rows and that of the seeds are each Student's, and added as squares. One number of degrees of
        freedom for both would be estimated itself, too high where two seeds happen to agree.
        """
        return hypot(*(student(tail, one.freedom) * one.error for one in self.spreads if one.error))

    def p(self) -> float:
        """Return the two-sided p of no difference: twice the tail of the interval that ends at 0."""
        size, (rows, seeds) = abs(self.value), self.spreads
        if not seeds.error:
            return 2 * float(special.stdtr(rows.freedom, -size / rows.error))
        if self.margin(LEAST_TAIL) <= size:
            return 2 * LEAST_TAIL
        found = optimize.brentq(lambda x: self.margin(10.0**x) - size, log10(LEAST_TAIL), log10(0.5))
        return float(2 * 10.0**found)

    def alike(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the interval where all clusters show the same value: the exact binomial bound on others.

        Of n clusters alike, as many as 1 - (tail)^(1/n) of all may differ, and be at either end of the scale. Ten right
        answers of ten are no proof of a hundred, and no difference on forty images is not none.
        """
        others = 1 - ((1 - confidence) / 2) ** (1 / self.pooled)
        low, high = ((1 - others) * self.value + others * end for end in self.scale)
        return low, high

    @property
    def pooled(self) -> int:
        """Clusters of a single benchmark that would be as sure as the mean of these."""
        clusters = [source.units for source in self.rows.values()]
        # As fractions: in floating point, the mean of three estimates of 5 clusters would have 14.
        return int(len(clusters) ** 2 / sum(Fraction(1, one) for one in clusters))

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """Return the part of an interval that is on the scale."""
        return max(low, self.scale[0]), min(high, self.scale[1])

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the paired difference."""
        (low, high), (lowest, highest) = self.scale, other.scale
        return linear((1.0, -1.0), [self, other], (low - highest, high - lowest))

    def __truediv__(self, other: Estimate) -> Estimate:
        """Return the ratio in percent. A resample in which the other is zero repeats the estimate."""
        value = 100 * self.value / other.value

        def ratio(x: Sequence[float | Array]) -> float | Array:
            unchanged = np.full(np.broadcast(*x).shape, value)
            return np.asarray(np.divide(100 * x[0], x[1], out=unchanged, where=np.asarray(x[1]) > 0))

        return combined(ratio, [self, other], POSITIVE)

    def moved(self, value: float) -> Estimate:
        """Return the estimate moved to another value on its scale."""
        return replace(self, value=value)

    def shifted(self, by: float) -> Estimate:
        """Return the estimate with a number added to it and to its scale."""
        low, high = self.scale
        return replace(self, value=self.value + by, scale=(low + by, high + by))

    def certain(self) -> Estimate:
        """Return the value without any chance in it, and so without an interval."""
        return replace(self, rows={}, seeds={})

    def over_seeds(self, name: str, values: Sequence[float]) -> Estimate:
        """Return the estimate, a mean over seeds, with the chance of these seeds added.

        The variance of the mean is that of the values, with k - 1 in its denominator, over k. Draws are normal: from a
        few seeds, resamples have a few values only.

        Args:
            name: of the runs; the same name on another benchmark means the same draws of seeds.
            values: one per seed.
        """
        count = len(values)
        rng = np.random.default_rng(crc32(name.encode()))
        resamples = max((source.size for source in self.rows.values()), default=1)
        weights = rng.standard_normal((resamples, count)) / (count * (count - 1)) ** 0.5
        draws = weights @ (np.asarray(values) - np.mean(values))
        return replace(self, seeds={**self.seeds, name: Source.of(draws, count)})


def linear(factors: Sequence[float], estimates: Sequence[Estimate], scale: Scale) -> Estimate:
    """Return a sum of estimates, each times a factor: `combined` of a linear function, without new arrays."""
    value = sum(factor * one.value for factor, one in zip(factors, estimates, strict=True))

    def sources(each: Sequence[Sources]) -> Sources:
        held: dict[str, list[tuple[float, Source]]] = {}
        for factor, some in zip(factors, each, strict=True):
            for name, source in some.items():
                held.setdefault(name, []).append((factor, source))
        return {name: summed(parts) for name, parts in held.items()}

    return Estimate(value, sources([one.rows for one in estimates]), sources([one.seeds for one in estimates]), scale)


Function = Callable[[Sequence[float | Array]], float | Array]
"""Of the values of some estimates, or of their draws."""


def combined(function: Function, estimates: Sequence[Estimate], scale: Scale) -> Estimate:
    """Return a smooth function of estimates: each source moves all of them at once, and one source after the other."""
    value = float(function([one.value for one in estimates]))

    def sources(each: Sequence[Sources]) -> Sources:
        found = {}
        for name in dict.fromkeys(name for some in each for name in some):
            held = [some.get(name) for some in each]
            moved = [
                one.value + source.draws if source else one.value for one, source in zip(estimates, held, strict=True)
            ]
            there = [source for source in held if source]
            units, freedom = min(source.units for source in there), min(source.freedom for source in there)
            found[name] = Source(((1.0, np.asarray(function(moved) - value)),), units, freedom)
        return found

    return Estimate(value, sources([one.rows for one in estimates]), sources([one.seeds for one in estimates]), scale)


def jointly(function: Function, estimates: Sequence[Estimate], scale: Scale) -> Estimate:
    """Return any function of estimates: all rows move all of them at once, and all seeds.

    For ranks and the like, which may be moved by all benchmarks together and by none alone.
    """
    value = float(function([one.value for one in estimates]))

    def sources(each: Sequence[Sources]) -> Sources:
        there = [source for some in each for source in some.values()]
        if not there:
            return {}
        moved = np.broadcast_arrays(*(one.value + together(some) for one, some in zip(estimates, each, strict=True)))
        freedom = min(spread(some).freedom for some in each)
        draws = np.asarray(function(moved)) - value
        return {"jointly": Source(((1.0, draws),), min(one.units for one in there), freedom)}

    return Estimate(value, sources([one.rows for one in estimates]), sources([one.seeds for one in estimates]), scale)


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Return the plain mean of at least one estimate."""
    if len(estimates) == 1:  # without rounding: a table of one benchmark has the leaderboard's numbers
        return estimates[0]
    count = len(estimates)
    low, high = (sum(one.scale[end] for one in estimates) / count for end in (0, 1))
    return linear([1 / count] * count, estimates, (low, high)).moved(sum(one.value for one in estimates) / count)
