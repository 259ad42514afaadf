"""Declarations of what every family was tried with: those of the tiny models that the engine's tests run on."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.helpers.tiny import COVERED, FAMILIES, WINDOWED, WITHOUT_LLM_ATTENTION, small
from uniprune.modeling.adapter import USUAL, ModelAdapter

ALL = (*FAMILIES, *COVERED, *WINDOWED, *WITHOUT_LLM_ATTENTION)


def tried_by_tests() -> dict[type[ModelAdapter], dict[str, set[str]]]:
    """Adapter -> part -> kinds of it among the tiny models of the engine's tests."""
    found: dict[type[ModelAdapter], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in ALL:
        adapter = small(name).adapter
        for part, kind in adapter.variant().items():
            found[type(adapter)][part].add(kind)
    return found


def test_every_family_declares_what_its_tests_run_on() -> None:
    """`tried` of an adapter is what is printed here: no more, and no less."""
    for family, parts in tried_by_tests().items():
        wanted = {part: sorted(kinds) for part, kinds in parts.items()}
        declared = {part: sorted({**USUAL, **family.tried}.get(part, ())) for part in parts}
        assert declared == wanted, f"{family.__name__} must declare tried = {wanted}"
        assert set(family.tried) <= set(parts)


@pytest.mark.parametrize("family", ALL)
def test_what_the_tests_run_on_carries_no_remark(family: str) -> None:
    assert small(family).adapter.untried() is None
