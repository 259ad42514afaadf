"""Clusters of rows that share an image or are scored together; intervals resample whole clusters."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def clusters(frame: Any, groups: Sequence[tuple[int, ...]]) -> dict[str, str]:
    """Map row index -> index of the first row of its cluster; rows are linked directly or through others.

    Images are compared by their encoded bytes: the same scene saved twice counts as two.

    Args:
        frame: rows with their `image` cells.
        groups: for every row, positions of the rows scored together with it.
    """
    labels: list[list[object]] = [
        [*(("image", image) for image in _images(str(cell))), ("group", group[0])]
        for cell, group in zip(frame["image"], groups, strict=True)
    ]
    numbers = {label: n for n, label in enumerate({label for row in labels for label in row})}
    rows, columns = np.array([(r, len(labels) + numbers[label]) for r, row in enumerate(labels) for label in row]).T
    size = len(labels) + len(numbers)
    _, component = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size)), False)
    indices = [str(index) for index in frame["index"]]
    first: dict[int, str] = {}
    return {index: first.setdefault(int(c), index) for index, c in zip(indices, component, strict=False)}


def shared(items: Iterable[str], cluster: Mapping[str, str]) -> dict[str, str]:
    """Return the rows that share their cluster with another of these, with the cluster."""
    names = {item: cluster[item] for item in items}
    counts: dict[str, int] = {}
    for name in names.values():
        counts[name] = counts.get(name, 0) + 1
    return {item: name for item, name in names.items() if counts[name] > 1}


def _images(cell: str) -> list[str]:
    return [str(image) for image in ast.literal_eval(cell)] if cell.startswith("[") else [cell]
