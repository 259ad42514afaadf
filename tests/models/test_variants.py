"""Declarations of what every family was tried with: those of the tiny models that the engine's tests run on."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.helpers.tiny import COVERED, FAMILIES, WINDOWED, small
from uniprune.modeling.adapter import USUAL
from uniprune.registry import MODELS


def tried_by_tests() -> dict[str, dict[str, set[str]]]:
    """Family -> part -> kinds of it among the tiny models of the engine's tests."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in (*FAMILIES, *COVERED, *WINDOWED):
        adapter = small(name).adapter
        for part, kind in adapter.variant().items():
            found[adapter.model.config.model_type][part].add(kind)
    return found


def test_every_family_declares_what_its_tests_run_on() -> None:
    """`tried` of an adapter is what is printed here: no more, and no less."""
    for family, parts in tried_by_tests().items():
        wanted = {part: sorted(kinds) for part, kinds in parts.items()}
        declared = {part: sorted({**USUAL, **MODELS.get(family).tried}.get(part, ())) for part in parts}
        assert declared == wanted, f"{family}: its adapter must declare tried = {wanted}"
        assert set(MODELS.get(family).tried) <= set(parts)


@pytest.mark.parametrize("family", (*FAMILIES, *COVERED, *WINDOWED))
def test_what_the_tests_run_on_carries_no_remark(family: str) -> None:
    assert small(family).adapter.untried() is None
