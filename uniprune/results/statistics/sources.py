"""Independent sources of chance: the rows of benchmarks, and the seeds of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite
from typing import NamedTuple

import numpy as np
from scipy import special

from uniprune.results.statistics.headline import Array

SPREADLESS = 1e-9
"""Largest standard error that is rounding alone."""
MOST_TERMS = 8
"""Terms of a sum above which its deviations are computed at once: every reader would add them up again."""


@dataclass(frozen=True)
class Source:
    """An independent source of chance: the rows of a benchmark or category, or the seeds of a method.

    Attributes:
        terms: factors and [B] deviations, whose sum it causes: means and differences of estimates share the arrays of
            these. The variance of the sum is without bias, whatever the number of units.
        units: clusters of rows, or seeds.
        freedom: degrees of freedom of the variance.
        computed: the variance where it is known already, else None.
    """

    terms: tuple[tuple[float, Array], ...]
    units: int
    freedom: float
    computed: float | None = None

    @classmethod
    def of(cls, draws: Array, units: int, computed: float | None = None) -> Source:
        """Return the source of units that are one sample."""
        return cls(((1.0, draws),), units, units - 1, computed)

    @property
    def size(self) -> int:
        """B, the number of deviations."""
        return self.terms[0][1].size

    @property
    def draws(self) -> Array:
        """[B] deviations."""
        (factor, draws), *others = self.terms
        total = draws if factor == 1 else factor * draws
        for factor, draws in others:
            total = total + factor * draws
        return total

    @cached_property
    def variance(self) -> float:
        """Variance that it causes."""
        return float(self.draws.var(ddof=1)) if self.computed is None else self.computed


Sources = Mapping[str, Source]


def together(sources: Sources) -> Array:
    """Return [B] deviations by some sources together; [1] for none."""
    total = np.zeros(1)
    for source in sources.values():
        for factor, draws in source.terms:
            total = total + (draws if factor == 1 else factor * draws)
    return total


class Spread(NamedTuple):
    """Spread by some sources together.

    Attributes:
        error: standard error; 0 if it is rounding alone.
        freedom: its degrees of freedom.
    """

    error: float
    freedom: float


def spread(sources: Sources) -> Spread:
    """Return the spread by independent sources, with Satterthwaite's degrees of freedom.

    A source without spread has no part in them: where two of ten benchmarks have any, it is as sure as these two.
    """
    parts = [(source.variance, source.freedom) for source in sources.values()]
    total = sum(variance for variance, _ in parts)
    if total**0.5 < SPREADLESS:
        return Spread(0.0, inf)
    return Spread(total**0.5, total**2 / sum(variance**2 / max(freedom, 1.0) for variance, freedom in parts))


def student(tail: float, freedom: float) -> float:
    """Return the distance, in standard errors, that Student's t exceeds with this probability."""
    return -float(special.stdtrit(freedom, tail) if isfinite(freedom) else special.ndtri(tail))


def summed(parts: Sequence[tuple[float, Source]]) -> Source:
    """Return the sum of sources of one name, each times a factor."""
    if len(parts) == 1:
        [(factor, source)] = parts
        terms = tuple([(factor * own, draws) for own, draws in source.terms])
        return Source(terms, source.units, source.freedom, factor**2 * source.variance)
    terms = tuple([(factor * own, draws) for factor, source in parts for own, draws in source.terms])
    units, freedom = min(source.units for _, source in parts), min(source.freedom for _, source in parts)
    found = Source(terms, units, freedom)
    return found if len(terms) <= MOST_TERMS else replace(found, terms=((1.0, found.draws),))


def difference(one: Source, other: Source, variance: float) -> Source:
    """Return one source minus another of its name, with the variance unless that is NaN."""
    terms = one.terms + tuple([(-factor, draws) for factor, draws in other.terms])
    known = variance if variance == variance else None
    return Source(terms, min(one.units, other.units), min(one.freedom, other.freedom), known)
