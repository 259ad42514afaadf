"""Means with normal draws: their joint spread is that of the rows, without resampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np

from uniprune.results.statistics.estimate import RESAMPLES, Estimate, Scale
from uniprune.results.statistics.headline import Array
from uniprune.results.statistics.sources import Source


def normal_means(
    rows: Sequence[str], clusters: Mapping[str, str], values: Array, name: str, scale: Scale
) -> list[Estimate]:
    """Estimate means of [R, rows] values: draws are normal, with the variances and covariances of the clusters.

    A mean needs no resampling: the variance of a ratio of sums over clusters is known, and so is the covariance of two
    runs on the same rows, which makes their differences paired. The bootstrap takes a second for some thousand rows.

    Args:
        rows: their names, at least one.
        clusters: row -> cluster; a row without one is a cluster of its own.
        values: of R runs.
        name: of the draws; estimates of one name are paired only within one call.
        scale: lowest and highest value.
    """
    numbers: dict[tuple[bool, str], int] = {}
    of = [numbers.setdefault((row in clusters, clusters.get(row, row)), len(numbers)) for row in rows]
    sizes, count = np.bincount(of), len(numbers)
    means = values.mean(1)
    sums = np.array([np.bincount(of, weights=each) for each in values])
    off = (sums - means[:, None] * sizes) / len(rows) * (count / max(1, count - 1)) ** 0.5  # [R, clusters]
    draws = _standard(min(off.shape), name) @ _factor(off)
    return [
        Estimate(float(mean), {name: Source.of(each, count)}, scale=scale)
        for mean, each in zip(means, draws.T, strict=True)
    ]


def _factor(off: Array) -> Array:
    """Return [K, R] numbers whose products are those of the [R, C] rows, K the smaller of R and C."""
    _, sizes, right = np.linalg.svd(off.T, full_matrices=False)
    return np.asarray(sizes[:, None] * right)


def _standard(count: int, name: str) -> Array:
    """Return [B, count] draws with sample means of 0 and the identity as sample covariance, seeded by a name."""
    rng = np.random.default_rng(crc32(name.encode()))
    drawn = rng.standard_normal((max(RESAMPLES, 2 * count), count))
    drawn -= drawn.mean(0)
    lower = np.linalg.cholesky(drawn.T @ drawn / (len(drawn) - 1))
    return np.asarray(np.linalg.solve(lower, drawn.T).T)
