"""The table of families in docs/models.md is made of declarations and of what the families' tiny models refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.reports.model_cards import BEGIN, families, refusals, trained, tries, with_cards
from uniprune.utils.tables import END

PAGE = ROOT / "docs" / "models.md"


@pytest.mark.end_to_end
def test_the_table_is_fresh(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    copy = tmp_path / "models.md"
    copy.write_text(page, encoding="utf-8")
    assert main(["cards", "--models", str(copy)]) == 0
    stale = "a family, its declaration or a refusal changed: python run.py cards --models docs/models.md"
    assert copy.read_text(encoding="utf-8") == page, stale
    assert all(f"| `{entry.name}` |" in page for entry in families())


def test_refusals_are_those_of_a_prefill() -> None:
    assert [label for label, _ in refusals("llava")] == ["pixelprune", "trim"]
    found = dict(refusals("qwen2_vl"))
    assert set(found) == {"tome", "trim", "`positions=compact`"}
    assert "this model has M-RoPE" in found["`positions=compact`"]
    assert {"fastv", "vispruner", "`scope=tile`"} < {label for label, _ in tries()}


def test_trained_models_are_those_of_the_repository() -> None:
    assert {entry.name: trained(entry.name) for entry in families() if trained(entry.name)} == {
        "internvl": ["tiny-internvl"],
        "llava": ["tiny-llava"],
        "qwen2_5_vl": ["tiny-qwen2.5-vl"],
        "qwen3_vl": ["tiny-qwen3-vl"],
    }


@pytest.mark.parametrize("page", ["", BEGIN, END + BEGIN])
def test_a_page_without_a_place_for_the_table_is_refused(page: str) -> None:
    with pytest.raises(UserError, match=r"no place for the table; expected the lines '<!-- python run\.py cards"):
        with_cards(page)
