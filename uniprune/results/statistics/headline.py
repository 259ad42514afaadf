"""A headline score as a function of sums over items, so that it can be computed again on any resample of them.

Every headline here is the mean of a few *parts*, each a sum over items divided by another: the mean credit (one part,
divided by the number of items), F1 (2 TP over 2 TP + FP + FN), a mean of category means, a mean of three accuracies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    alike: dict[tuple[str, ...], int] = {}  # most scores have the same items in the same order
    items = [
        {part: alike.setdefault(tuple(added), len(alike)) for part, added in _tables(score).items() if added}
        for score in scores
    ]
    known = _owners(scores, items, list(alike))
    place = {name: c for c, name in enumerate(sorted(set(known.values())))}
    sums = np.zeros((len(scores), len(place), len(parts), 2))
    holds = np.zeros(sums.shape[1:3], bool)
    numbers = [np.array([place[known[item]] for item in own]) for own in alike]
    for r, score in enumerate(scores):
        for p, part in enumerate(parts):
            if part in items[r]:
                clusters = numbers[items[r][part]]
                for end, values in enumerate(_values(score, part)):
                    sums[r, :, p, end] = np.bincount(clusters, weights=values, minlength=len(place))
                holds[clusters, p] = True
    return Clustered(sums, holds, parts)


def _tables(score: Itemised) -> Mapping[str, Mapping[str, object]]:
    """Return part -> what it has of every item."""
    return score.parts or {CREDIT: score.per_item}


def _values(score: Itemised, part: str) -> Iterator[Array | None]:
    """Yield the numerators of a part's items and their denominators, None where all of these are 1."""
    if not score.parts:
        yield np.fromiter(score.per_item.values(), float, len(score.per_item))
        yield None
        return
    yield from np.array(list(score.parts[part].values())).T


def _owners(
    scores: Sequence[Itemised], items: Sequence[Mapping[str, int]], alike: Sequence[tuple[str, ...]]
) -> dict[str, tuple[str, str]]:
    """Return item -> its cluster, or itself. Of an item in several clusters, the last score's counts.

    Args:
        scores: all scores.
        items: per score, part -> number of its items.
        alike: the items of every number.
    """
    owner: dict[str, tuple[str, str]] = {}
    seen = set[int]()
    for score, parts in zip(reversed(scores), reversed(items), strict=True):
        for number in parts.values():
            for item in set(alike[number]) - owner.keys() if number not in seen else ():
                owner[item] = ("shared", score.clusters[item]) if item in score.clusters else ("own", item)
            seen.add(number)
    return owner


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
    return mean_of_parts(sums[..., 0], sums[..., 1], axis=-1)


def mean_of_parts(above: Array, below: Array, axis: int) -> Array:
    """Return headlines, 0-100, of numerators and denominators with the parts along an axis.

    Parts without items are left out; 0 if all are.
    """
    there = below > 0
    ratios = np.divide(above, below, out=np.zeros_like(above), where=there)
    return np.asarray(100 * ratios.sum(axis) / np.maximum(there.sum(axis), 1))
