"""The cluster bootstrap: estimates of headlines from scores with their items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np

from uniprune.results.statistics.estimate import RESAMPLES, SHARE, Estimate, Scale
from uniprune.results.statistics.headline import (
    Array,
    Clustered,
    Itemised,
    cluster_sums,
    headline,
    mean_of_parts,
    strata,
)
from uniprune.results.statistics.sources import SPREADLESS, Source

BATCH = 200
"""Resamples of which the clusters are drawn at once."""


def resample(scores: Sequence[Itemised], name: str, resamples: int = RESAMPLES) -> list[Estimate]:
    """Estimate the headlines of several scores of the same questions by one cluster bootstrap, seeded by the name.

    Clusters are drawn with replacement and bring all their items, within each category where the headline is a mean of
    categories. The same clusters are drawn for every score, so that differences are paired; benchmarks of different
    names are drawn independently.
    """
    return _bootstrap(cluster_sums(scores), name, resamples)


def resampled_means(
    rows: Sequence[str], clusters: Mapping[str, str], values: Array, name: str, scale: Scale
) -> list[Estimate]:
    """Estimate means of [R, rows] values by the bootstrap of `resample`; a row without a cluster is one of its own."""
    numbers: dict[tuple[bool, str], int] = {}
    of = [numbers.setdefault((row in clusters, clusters.get(row, row)), len(numbers)) for row in rows]
    sums = np.zeros((len(values), len(numbers), 1, 2))
    for r, each in enumerate(values):
        sums[r, :, 0, 0] = np.bincount(of, weights=each) / 100
    sums[..., 1] = np.bincount(of)[:, None]
    found = _bootstrap(Clustered(sums, np.ones(sums.shape[1:3], bool)), name, RESAMPLES)
    return [replace(one, scale=scale) for one in found]


def _bootstrap(clustered: Clustered, name: str, resamples: int) -> list[Estimate]:
    """Estimate the headlines of R scores."""
    sums = clustered.sums
    values, rng = headline(sums.sum(1)), np.random.default_rng(crc32(name.encode()))
    rows: list[dict[str, Source]] = [{} for _ in sums]
    counted = (sums[..., 1].sum(1) > 0).sum(-1)  # [R] parts in the headline
    layers = strata(clustered)
    for stratum in layers:
        own = sums[:, stratum.clusters][:, :, stratum.parts]
        share = (own[..., 1].sum(1) > 0).sum(-1) / np.maximum(counted, 1)
        draws = _draws(own, rng, resamples) - headline(own.sum(1))[:, None]
        if len(layers) > 1:
            draws = draws + _unseen(draws, headline(own.sum(1)), stratum.fewest, rng)
        key = name if len(layers) == 1 else f"{name}: {stratum.name}"
        draws = share[:, None] * draws
        for own_rows, each, variance in zip(rows, draws, draws.var(axis=1, ddof=1).tolist(), strict=True):
            own_rows[key] = Source.of(each, stratum.fewest, variance)
    return [Estimate(float(value), each, scale=SHARE) for value, each in zip(values, rows, strict=True)]


def _draws(sums: Array, rng: np.random.Generator, resamples: int) -> Array:
    """Return [R, B] headlines of resampled [R, C, P, 2] sums over clusters, as far from the headline as C - 1 ask for.

    The bootstrap's variance is (C - 1) / C of the unbiased one. Resamples are those of `scipy.stats.bootstrap`, which
    would sort all of them for an interval of its own.
    """
    runs, clusters, parts = sums.shape[:3]
    values = headline(sums.sum(1))[:, None]
    if clusters < 2:
        return np.repeat(values, resamples, axis=1)
    above, below = np.moveaxis(sums, (3, 2), (0, 2))  # each [R, P, C]
    if (below == below[:1]).all():
        below = below[:1]  # equal items have equal denominators
    above, below = (each.reshape(-1, clusters) for each in (above, below))
    drawn = np.empty((runs, resamples))
    for start in range(0, resamples, BATCH):
        rows = rng.integers(0, clusters, (min(BATCH, resamples - start), clusters))
        offsets = clusters * np.arange(len(rows))[:, None]
        times = np.bincount((rows + offsets).ravel(), minlength=rows.size).reshape(rows.shape).astype(float).T
        tops, bottoms = ((side @ times).reshape(-1, parts, len(rows)) for side in (above, below))
        drawn[:, start : start + len(rows)] = mean_of_parts(tops, bottoms, axis=1)
    return np.asarray(values + (drawn - values) * (clusters / (clusters - 1)) ** 0.5)


def _unseen(draws: Array, values: Array, clusters: int, rng: np.random.Generator) -> Array:
    """Return [R, B] deviations of categories whose clusters are all right or all wrong, so that no resample differs.

    Among the others they would count as certain. Their variance is that of one more cluster right and one more wrong
    (Agresti and Coull), away from the end of the scale that they are at.
    """
    error = 100 * ((clusters + 1) / (clusters + 2) ** 3) ** 0.5
    side = np.where(np.ptp(draws, axis=1) > SPREADLESS, 0, np.where(values < 50, 1, -1))
    return np.asarray(error * side[:, None] * rng.standard_normal(draws.shape[1]))
