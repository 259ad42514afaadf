"""Hard and easy rows of a benchmark: those that a resized image answers wrong, and those that it answers right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RIGHT = 0.5
"""Least credit of a row that counts as right where rows are parted; its accuracy is its credit."""


@dataclass(frozen=True)
class RowGroups:
    """Rows by what the model makes of their resized image.

    Attributes:
        hard: rows answered wrong with it, which need more of the image than its resized version has ("A").
        easy: rows answered right ("B").
    """

    hard: tuple[str, ...]
    easy: tuple[str, ...]


def row_groups(resized: Mapping[str, bool], whole: Mapping[str, bool] | None = None) -> RowGroups:
    """Part rows.

    Args:
        resized: row -> whether the model is right with the resized image.
        whole: row -> whether it is with the whole one; rows that it then answers wrong, or not at all, are in neither
            group, as in VTC-Bench's released code. None leaves all rows in, as its paper says.
    """
    known = [row for row in resized if whole is None or whole.get(row, False)]
    return RowGroups(
        hard=tuple(row for row in known if not resized[row]), easy=tuple(row for row in known if resized[row])
    )
