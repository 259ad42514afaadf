"""Estimates with their bootstrap draws, from which differences, ratios and means of them get intervals too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from uniprune.results.statistics.headline import Array, Itemised, cluster_sums, headline

RESAMPLES = 2000
"""Bootstrap resamples: the ends of a 95 % interval move by a few hundredths of its width with the seed."""


@dataclass(frozen=True)
class Estimate:
    """A number with its values on resampled questions.

    Attributes:
        value: the number.
        draws: [B] its bootstrap replicates; draw b of all estimates belongs to the same resample.
        clusters: independent units resampled; of a mean, as many as would make a single benchmark equally sure.
        share: whether it is a share of what could be right, 0-100, and not a difference or ratio of such.
    """

    value: float
    draws: Array
    clusters: int
    share: bool = False

    @property
    def error(self) -> float:
        """Standard error."""
        return float(self.draws.std(ddof=1))

    def interval(self, confidence: float = 0.95) -> tuple[float, float] | None:
        """Return the percentile interval; None for a single cluster, whose spread is unknown.

        Where all items are right, or all wrong, no resample differs, and the interval is the exact binomial one of as
        many clusters: ten right answers of ten are no proof of a hundred.
        """
        if self.clusters < 2:
            return None
        if self.share and self.value in (0, 100) and not np.ptp(self.draws):
            right = self.clusters if self.value else 0
            exact = stats.binomtest(right, self.clusters).proportion_ci(confidence, method="exact")
            return 100 * float(exact.low), 100 * float(exact.high)
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.draws, (tail, 1 - tail))
        return float(low), float(high)

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the paired difference."""
        return Estimate(self.value - other.value, self.draws - other.draws, min(self.clusters, other.clusters))

    def __truediv__(self, other: Estimate) -> Estimate:
        """Return the ratio in percent. A resample in which the other is zero repeats the estimate."""
        value = 100 * self.value / other.value
        draws = np.divide(100 * self.draws, other.draws, out=np.full_like(self.draws, value), where=other.draws > 0)
        return Estimate(value, draws, min(self.clusters, other.clusters))

    def moved(self, value: float) -> Estimate:
        """Return the estimate moved to another value, with its draws."""
        return replace(self, value=value, draws=self.draws + (value - self.value))


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Return the plain mean of at least one estimate."""
    clusters = [one.clusters for one in estimates]
    # As fractions: in floating point, the mean of three estimates of 5 clusters would have 14.
    together = sum(Fraction(1, one) for one in clusters) if all(clusters) else Fraction(0)
    return Estimate(
        float(np.mean([one.value for one in estimates])),
        np.mean([one.draws for one in estimates], axis=0),
        int(len(clusters) ** 2 / together) if together else 0,
        all(one.share for one in estimates),
    )


def resample(scores: Sequence[Itemised], name: str, resamples: int = RESAMPLES) -> list[Estimate]:
    """Estimate the headlines of several scores of the same questions by one cluster bootstrap, seeded by the name.

    Clusters are drawn with replacement and bring all their items. The same clusters are drawn for every score, so that
    differences are paired; benchmarks of different names are drawn independently.
    """
    return _bootstrap(cluster_sums(scores), name, resamples)


def resampled_means(rows: Sequence[str], clusters: Mapping[str, str], values: Array, name: str) -> list[Estimate]:
    """Estimate means of [R, rows] values by the bootstrap of `resample`; a row without a cluster is one of its own."""
    numbers: dict[tuple[bool, str], int] = {}
    of = [numbers.setdefault((row in clusters, clusters.get(row, row)), len(numbers)) for row in rows]
    sums = np.zeros((len(values), len(numbers), 1, 2))
    for r, each in enumerate(values):
        sums[r, :, 0, 0] = np.bincount(of, weights=each)
    sums[..., 1] = np.bincount(of)[:, None]
    found = _bootstrap(sums, name, RESAMPLES)
    return [Estimate(one.value / 100, one.draws / 100, one.clusters) for one in found]


def _bootstrap(sums: Array, name: str, resamples: int) -> list[Estimate]:
    """Estimate the headlines of R scores from [R, C, P, 2] sums over clusters."""
    runs, clusters = sums.shape[:2]
    flat = sums.swapaxes(0, 1).reshape(clusters, runs * sums.shape[2] * 2)

    def statistic(drawn: NDArray[np.int64], axis: int = -1) -> Array:
        rows = drawn.reshape(-1, clusters)
        offsets = clusters * np.arange(len(rows))[:, None]
        times = np.bincount((rows + offsets).ravel(), minlength=rows.size).reshape(rows.shape).astype(float)
        values = headline((times @ flat).reshape(len(rows), runs, -1, 2))  # [resamples, R]
        return np.moveaxis(values, 0, -1).reshape(runs, *drawn.shape[:-1])

    values = headline(sums.sum(1))
    if clusters < 2:
        draws = np.repeat(values[:, None], resamples, axis=1)
    else:
        draws = stats.bootstrap(
            (np.arange(clusters),),
            statistic,
            n_resamples=resamples,
            method="percentile",
            vectorized=True,
            batch=200,
            rng=np.random.default_rng(crc32(name.encode())),
        ).bootstrap_distribution
    return [Estimate(float(value), row, clusters, share=True) for value, row in zip(values, draws, strict=True)]
