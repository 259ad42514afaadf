"""docs/methods.md is made of the methods' docstrings, fields and metadata, and these are complete."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.helpers.paths import ROOT
from uniprune.cli.main import main
from uniprune.pruning.base import PreLLM
from uniprune.pruning.fields import Share
from uniprune.registry import METHODS
from uniprune.reports.method_cards import (
    card,
    cards,
    description,
    embedded,
    licence,
    meanings,
    needs,
    parameters,
    served,
    shared_parameters,
)

NAMES = [entry.name for entry in embedded()]
SOURCES = ("Paper", "Release", "UniPruneBench")
"""Sources that deviations depart from: the first word of each."""


def test_the_page_is_fresh() -> None:
    written = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert written == cards(), "a method's docstring or fields changed: python run.py cards > docs/methods.md"


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_complete(name: str) -> None:
    entry = METHODS.entry(name)
    assert "\n\nCost: " in description(entry.target)
    if entry.metadata.get("paper"):
        assert entry.metadata["deviations"]
        assert entry.metadata["paper"] in description(entry.target)
        for deviation in entry.metadata["deviations"]:
            assert deviation.startswith(SOURCES)
            assert deviation.endswith(".")
    known = [p.name for p in [*parameters(entry.target), *shared_parameters()]]
    assert [p.name for p in [*parameters(entry.target), *shared_parameters()] if not p.meaning] == []
    assert set(meanings(entry.target)) <= {*known, "parts"}, "explains a field that does not exist"


def test_links_lead_to_headings_and_files() -> None:
    page = cards()
    assert "[prumerge+](#prumerge-1)" in page
    for entry in embedded():
        assert f"\n## {entry.name}\n" in page
        path = Path(inspect.getsourcefile(entry.target) or "").relative_to(ROOT)
        assert f"[{path}](../{path})" in page


def test_every_card_of_released_code_has_its_licence() -> None:
    known = {"Apache-2.0", "MIT", "CC BY-NC", "CC BY-NC 4.0", "none", "not stated"}
    exempt = {"prunesid": "Apache-2.0 by its README", "scope": "none of its own; headers of files Apache-2.0"}
    page = cards()
    for one in (*embedded(), *METHODS.published().values()):
        found = licence(one.metadata)
        assert found == "" if not one.metadata.get("code") else found in {*known, exempt.get(one.name)}, one.name
        section = page.partition(f"\n## {one.name}\n")[2].partition("\n## ")[0]
        assert (f"\n* Its licence: {found}\n" in section) == bool(found), one.name
    assert licence(METHODS.entry("divprune").metadata) == "CC BY-NC"
    assert licence(METHODS.entry("fastv").metadata) == "not stated"


def test_needs_follow_from_what_a_method_declares() -> None:
    told = {name: needs(METHODS.get(name)) for name in ("divprune", "fastv", "visionzip", "mustdrop", "cdpruner")}
    assert told == {
        "divprune": [],
        "fastv": ["LLM attention", "question"],
        "visionzip": ["vision tower"],
        "mustdrop": ["LLM attention", "vision tower", "question"],
        "cdpruner": ["question"],
    }


def test_cards_say_whether_a_method_can_be_served() -> None:
    assert "* [Can be served](serving.md): yes\n" in card(METHODS.entry("divprune"))
    assert "* [Can be served](serving.md): no: it prunes before decoder layer 2" in card(METHODS.entry("fastv"))
    assert served(METHODS.get("visionzip")) == "yes: with quantities of the vision tower"


def test_a_method_with_required_fields_is_described_without_them() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needy(PreLLM):
        """Needs a field."""

        width: int

    assert served(Needy) == "depends on its fields"


def test_listings_show_deviations_to_machines_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "fastv", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["licence"] == "not stated"
    assert row["deviations"] == METHODS.entry("fastv").metadata["deviations"]
    assert row["fields"] == {}
    assert main(["list", "methods", "fastv"]) == 0
    assert "deviations" not in capsys.readouterr().out


def test_parameters_take_their_meaning_from_the_class_that_explains_them() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Base(PreLLM):
        """Base, on
        two lines.

        More.

        Args:
            width: of the window.
            depth: how deep, for example
                `width: 3`.
        """

        width: int = 1
        depth: float | None = None

    @dataclass(frozen=True, kw_only=True)
    class Child(Base):
        """Child.

        Args:
            mode: "a" or "b".
        """

        mode: Literal["a", "b"] = "a"
        share: Share = 0.5

    rows = {p.name: (p.kind, p.default, p.meaning) for p in parameters(Child)}
    assert description(Base) == "Base, on two lines.\n\nMore."
    assert rows["width"] == ("`int`", "1", "of the window.")
    assert rows["depth"] == ("`float` or `None`", "null", "how deep, for example `width: 3`.")
    assert rows["mode"] == ("`a`, `b`", "a", '"a" or "b".')
    assert rows["share"] == ("`float` in [0, 1]", "0.5", "")
