"""The table of kinds of prompts in docs/prompts.md is what the families' tiny models take and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.reports.model_cards import families
from uniprune.reports.prompt_cards import BEGIN, KINDS, methods, prompt_cards, refusals, with_cards

PAGE = ROOT / "docs" / "prompts.md"
STALE = "a family, a method or a refusal changed: python run.py cards --prompts docs/prompts.md"


@pytest.mark.exhaustive
def test_the_table_is_fresh(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    copy = tmp_path / "prompts.md"
    copy.write_text(page, encoding="utf-8")
    assert main(["cards", "--prompts", str(copy)]) == 0
    assert copy.read_text(encoding="utf-8") == page, STALE


@pytest.mark.end_to_end
def test_a_row_is_fresh() -> None:
    """Numbers of reasons are the page's own: what is refused is compared, and every reason is there."""
    page = PAGE.read_text(encoding="utf-8")
    [mine] = [line for line in prompt_cards(["glm4v"]).splitlines() if "`glm4v`" in line]
    [theirs] = [line for line in page.splitlines() if "| `glm4v` |" in line]
    assert words(mine) == words(theirs), STALE
    assert all(reason in page for reason in prompt_cards(["glm4v"]).split(": ")[2:] if "\n" not in reason)


def words(line: str) -> list[str]:
    return [cell.split(" [")[0].strip() for cell in line.split("|")]


def test_every_family_and_kind_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{entry.name}` |" in page for entry in families())
    assert all(f"| {kind} |" in page for kind in KINDS)


def test_refusals_are_those_of_a_prompt() -> None:
    assert [label for label, _ in refusals("qwen2_vl", "video")] == ["tome", "trim"]
    found = dict(refusals("llava", "video"))
    assert set(found) == set(methods())
    assert set(found.values()) == {"videos of this family are not supported"}
    hidden, continued = dict(refusals("llava", "question hidden")), dict(refusals("llava", "prefix continued"))
    assert set(hidden) == set(continued)
    assert "fastv" in hidden
    assert "divprune" not in hidden


@pytest.mark.parametrize("page", ["", BEGIN])
def test_a_page_without_a_place_for_the_table_is_refused(page: str) -> None:
    with pytest.raises(UserError, match=r"no place for the table; expected the lines '<!-- python run\.py cards --pro"):
        with_cards(page)
