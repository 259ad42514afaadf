"""Clusters of rows that share an image or are scored together; intervals resample whole clusters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def clusters(
    names: Sequence[str], images: Sequence[Sequence[str]], groups: Sequence[tuple[int, ...]]
) -> dict[str, str]:
    """Map row index -> index of the first row of its cluster; rows are linked directly or through others.

    Images are compared by their encoded bytes: the same scene saved twice counts as two.

    Args:
        names: indexes of the rows.
        images: their encoded images.
        groups: for every row, positions of the rows scored together with it.
    """
    labels: list[list[object]] = [
        [*(("image", image) for image in shown), ("group", group[0])]
        for shown, group in zip(images, groups, strict=True)
    ]
    numbers = {label: n for n, label in enumerate({label for row in labels for label in row})}
    rows, columns = np.array([(r, len(labels) + numbers[label]) for r, row in enumerate(labels) for label in row]).T
    size = len(labels) + len(numbers)
    _, component = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size)), False)
    first: dict[int, str] = {}
    return {name: first.setdefault(int(c), name) for name, c in zip(names, component, strict=False)}


def shared(items: Iterable[str], cluster: Mapping[str, str]) -> dict[str, str]:
    """Return the rows that share their cluster with another of these, with the cluster."""
    names = {item: cluster[item] for item in items}
    counts: dict[str, int] = {}
    for name in names.values():
        counts[name] = counts.get(name, 0) + 1
    return {item: name for item, name in names.items() if counts[name] > 1}
