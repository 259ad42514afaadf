"""docs/add-a-method.md is true: its method is checked and evaluated, its output is what `check` prints."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.paths import PLUGINS, ROOT
from uniprune.cli.main import main

pytestmark = pytest.mark.end_to_end

FAMILIES = ("internvl", "llava", "llava_next", "qwen2_5_vl")
"""Families that the page shows."""
TEXT = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    """A block of a language, by default the first."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)[number]


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plugin") / "largest.py"
    file.write_text(block("python"), encoding="utf-8")
    return file


def table(shown: str) -> list[list[str]]:
    """Check and outcome of every row, without rules, which may be folded, and the notes below."""
    lines = [line for line in shown.splitlines() if not line.startswith(("reported ", "n.a. "))]
    return [cells[:2] for line in lines if len(cells := re.split(r"  +", line.strip())) == 3]


def test_the_method_is_fifteen_lines_and_keeps_every_rule(method: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(block("python").splitlines()) <= 15
    assert main(["check", str(method), "--family", *FAMILIES]) == 0
    shown = capsys.readouterr().out
    assert table(shown) == table(block("text")), "paste what `python run.py check largest.py` prints"


def test_the_method_that_looks_keeps_every_rule(tmp_path: Path) -> None:
    (tmp_path / "turned.py").write_text(block("python", 1), encoding="utf-8")
    assert main(["check", str(tmp_path / "turned.py"), "--family", "llava"]) == 0


def test_the_method_is_evaluated(method: Path, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    words = ["run", "--plugin", str(method), "--plugin", str(PLUGINS / "small_benchmark.py"), "--data", "small"]
    words += ["--model", str(checkpoint("llava")), "--output", str(tmp_path / "results"), "--limit", "2"]
    assert main([*words, "--method", "none", "largest", "--ratio", "0.25", "--set", "power=1"]) == 0
    board = list(csv.DictReader((tmp_path / "results" / "leaderboard.csv").open(encoding="utf-8")))
    assert {row["method"] for row in board} == {"none", "largest"}


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    modules = re.findall(r"`(uniprune/[\w/]+\.py)`", TEXT)
    assert targets
    assert modules
    for path in (*(ROOT / "docs" / target for target in targets), *(ROOT / module for module in modules)):
        assert path.is_file(), path
