"""A headline score as a function of sums over items, so that it can be computed again on any resample of them.

Every headline here is the mean of a few *parts*, each a sum over items divided by another: the mean credit (one part,
divided by the number of items), F1 (2 TP over 2 TP + FP + FN), a mean of category means, a mean of three accuracies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Array = NDArray[np.float64]
CREDIT = "credit"
"""Part of a headline that is the mean credit."""


class Itemised(Protocol):
    """A score with the contributions of its items (`uniprune.evaluation.dataset.Score` and its stored form)."""

    @property
    def per_item(self) -> Mapping[str, float]:
        """Credit of each item, 0-1."""

    @property
    def clusters(self) -> Mapping[str, str]:
        """Item -> cluster, an image for instance; an item left out is a cluster of its own."""

    @property
    def parts(self) -> Mapping[str, Mapping[str, tuple[float, float]]]:
        """Part -> item -> (numerator, denominator); empty where the headline is the mean credit."""


def contributions(score: Itemised) -> Mapping[str, Mapping[str, tuple[float, float]]]:
    """Return part -> item -> (numerator, denominator)."""
    return score.parts or {CREDIT: {item: (credit, 1.0) for item, credit in score.per_item.items()}}


class Clustered(NamedTuple):
    """Scores of the same questions, summed over clusters of items.

    Attributes:
        sums: [R, C, P, 2] numerators and denominators of R scores, C clusters and P parts.
        holds: [C, P] whether a cluster has an item of a part.
        parts: names of the parts.
    """

    sums: Array
    holds: NDArray[np.bool_]
    parts: Sequence[str] = ("",)


class Stratum(NamedTuple):
    """Parts of a headline that share no cluster with any other part, such as a category.

    Attributes:
        name: the parts' names.
        clusters: numbers of its clusters.
        parts: numbers of its parts.
        fewest: clusters of the part that has the fewest.
    """

    name: str
    clusters: NDArray[np.int64]
    parts: NDArray[np.int64]
    fewest: int


def cluster_sums(scores: Sequence[Itemised]) -> Clustered:
    """Return the sums of R scores of the same questions over clusters, which have the same names in all scores."""
    parts = sorted({part for score in scores for part in score.parts or (CREDIT,)})
    owner: dict[str, tuple[str, str]] = {}
    for score in reversed(scores):  # of an item in several clusters, the last score's counts
        for added in score.parts.values() or (score.per_item,):
            for item in added.keys() - owner.keys():
                owner[item] = ("shared", score.clusters[item]) if item in score.clusters else ("own", item)
    place = {name: c for c, name in enumerate(sorted(set(owner.values())))}
    sums = np.zeros((len(scores), len(place), len(parts), 2))
    holds = np.zeros(sums.shape[1:3], bool)
    numbers: dict[tuple[str, ...], NDArray[np.int64]] = {}  # most scores have the same items in the same order
    for r, score in enumerate(scores):
        table = contributions(score)
        for p, part in enumerate(parts):
            if added := table.get(part, {}):
                items, values = tuple(added), np.array(list(added.values()))
                if items not in numbers:
                    numbers[items] = np.array([place[owner[item]] for item in items])
                clusters = numbers[items]
                for end in (0, 1):
                    sums[r, :, p, end] = np.bincount(clusters, weights=values[:, end], minlength=len(place))
                holds[clusters, p] = True
    return Clustered(sums, holds, parts)


def strata(clustered: Clustered) -> list[Stratum]:
    """Return what is resampled apart: parts connected by clusters are together, a lone part is a stratum."""
    holds = clustered.holds
    clusters, parts = holds.shape
    rows, columns = np.nonzero(holds)
    graph = coo_array((np.ones(len(rows)), (rows, clusters + columns)), shape=(clusters + parts,) * 2)
    label = connected_components(graph, directed=False)[1]
    found = []
    for each in dict.fromkeys(label[clusters:].tolist()):
        own = np.flatnonzero(label[clusters:] == each)
        name = ", ".join(clustered.parts[p] for p in own.tolist())
        fewest = int(holds[:, own].sum(0).min())
        found.append(Stratum(name, np.flatnonzero(label[:clusters] == each), own, fewest))
    return found


def headline(sums: Array) -> Array:
    """Return [...] headlines, 0-100, of [..., P, 2] sums. Parts without items are left out; 0 if all are."""
    above, below = sums[..., 0], sums[..., 1]
    there = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=there)
    return np.asarray(100 * ratios.sum(-1) / np.maximum(there.sum(-1), 1))
