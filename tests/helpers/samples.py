"""Samples of the cases of parametrised tests: `make test` runs those, `make test-all` runs all."""

from __future__ import annotations

from typing import Any

import pytest

NUMBERS = pytest.StashKey[dict[tuple[str, str], dict[int, int]]]()
"""Test and parameter -> identity of a value -> its number, in the order of collection."""


def leave_out(item: pytest.Item) -> None:
    """Mark a case as `exhaustive` if it is outside the sample of its test, which the marker `sample(n)` asks for.

    A case is in the sample if the numbers of its parameters' values add up to a multiple of n. Of a matrix that are
    diagonals: every row and every column has cases, unless it has fewer than n.
    """
    marker, case = item.get_closest_marker("sample"), getattr(item, "callspec", None)
    if marker is None or case is None:
        return
    known = item.session.stash.setdefault(NUMBERS, {})
    test = item.nodeid.partition("[")[0]
    total = sum(
        number(known.setdefault((test, name), {}), case.params[name])
        for name in {first_name(mark) for mark in item.iter_markers("parametrize")}
    )
    if total % marker.args[0]:
        item.add_marker(pytest.mark.exhaustive)


def first_name(mark: pytest.Mark) -> str:
    """Return the first of the parameters that a marker sets together."""
    names = mark.args[0]
    return str(names.split(",")[0].strip() if isinstance(names, str) else names[0])


def number(known: dict[int, int], value: Any) -> int:
    """Return a value's number, the next one if it is new."""
    return known.setdefault(id(value), len(known))
