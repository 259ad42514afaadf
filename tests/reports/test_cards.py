"""docs/methods.md is what the methods say of themselves, and they say enough."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.helpers.paths import ROOT
from uniprune.pruning.base import PreLLM
from uniprune.registry import METHODS
from uniprune.reports.method_cards import cards, embedded, parameters, sections, shared_parameters

NAMES = [entry.name for entry in embedded()]


def test_the_page_is_fresh() -> None:
    written = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert written == cards(), "a method's docstring or fields changed: python run.py cards > docs/methods.md"


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_complete(name: str) -> None:
    entry = METHODS.entry(name)
    told = sections(inspect.getdoc(entry.target) or "")
    assert told[""].count("\n\n") >= 1 or told.keys() > {""}, "an idea in one line is no card"
    assert "Cost" in told
    if entry.metadata.get("paper"):
        assert "Differs from the paper in" in told
    unexplained = [p.name for p in [*parameters(entry.target), *shared_parameters()] if not p.meaning]
    assert not unexplained


def test_links_lead_to_headings_and_files() -> None:
    page = cards()
    assert "[prumerge+](#prumerge-1)" in page
    for entry in embedded():
        assert f"\n## {entry.name}\n" in page
        path = Path(inspect.getsourcefile(entry.target) or "").relative_to(ROOT)
        assert f"[{path}](../{path})" in page


def test_what_a_docstring_may_look_like() -> None:
    doc = "Idea, on\ntwo lines.\n\nMore. Differs from the\npaper in: one\nthing. Cost: none.\n\nArgs:\n  a, b: two."
    assert sections(doc) == {
        "": "Idea, on two lines.\n\nMore.",
        "Differs from the paper in": "one thing.",
        "Cost": "none.",
        "Args": "a, b: two.",
    }


def test_parameters_take_their_meaning_from_the_class_that_explains_them() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Base(PreLLM):
        """Base.

        Args:
            width, height: of the window. depth: how deep, for example `width: 3`.
        """

        width: int = 1
        height: int = 2
        depth: float | None = None

    @dataclass(frozen=True, kw_only=True)
    class Child(Base):
        """Child.

        Args:
            mode: "a" or "b".
        """

        mode: Literal["a", "b"] = "a"

    rows = {p.name: (p.kind, p.default, p.meaning) for p in parameters(Child)}
    assert rows["width"] == (rows["height"][0], "1", "of the window.")
    assert rows["depth"][:2] == ("`float or None`", "null")
    assert rows["mode"] == ("`a`, `b`", "a", '"a" or "b".')
