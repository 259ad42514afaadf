"""The printed leaderboard: all columns into files, those that fit into terminals."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rich.console import Console

from tests.helpers.paths import ROOT
from uniprune.cli import terminal_table
from uniprune.results.table import BudgetCell, ResultTable
from uniprune.utils import terminal

BENCHMARKS = [f"benchmark-{i}" for i in range(10)]
COLUMNS = ("model", "method", "ratio", *BENCHMARKS, "average", "rows", "identity")


def board(runs: int) -> ResultTable:
    row = {"model": "tiny", "ratio": 0.111, "average": 50.0, "rows": 10, "identity": "0123456789abcdef"}
    rows = [row | {"method": f"method-{i}"} | dict.fromkeys(BENCHMARKS, 12.5) for i in range(runs)]
    return ResultTable(COLUMNS, rows, ())


@pytest.mark.parametrize(
    ("runs", "width", "dropped"),
    [(30, 400, False), (2, 60, False), (30, 60, True)],
    ids=["fits", "on its side", "narrowed"],
)
def test_terminals_show_what_fits(
    runs: int,
    width: int,
    dropped: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (terminal, terminal_table):
        monkeypatch.setattr(module, "stdout", lambda needed=0: Console(width=width))
    terminal_table.show(board(runs))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model")
    table = [line.rstrip() for line in lines if "do not fit" not in line]
    assert max(map(len, table)) <= width
    assert "…" not in "".join(lines)
    assert any("do not fit" in line for line in lines) is dropped
    if dropped:
        assert lines[0].split() == ["model", "method", "ratio", "average", "rows"]
        assert len(lines) >= runs


def test_an_empty_line_parts_budget_groups(capsys: pytest.CaptureFixture[str]) -> None:
    groups = [None, BudgetCell(1, 58.7, 58.7), BudgetCell(2, 16.0, 16.4), BudgetCell(2, 16.0, 16.4)]
    rows = [{"model": "tiny", "method": f"m{n}", "budget group": group} for n, group in enumerate(groups)]
    terminal_table.show(ResultTable(("model", "method", "budget group"), rows))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["tiny", "m0", "–"], [], ["tiny", "m1", "1:", "58.7"], [],
        ["tiny", "m2", "2:", "16.0–16.4"], ["tiny", "m3", "2:", "16.0–16.4"],
    ]  # fmt: skip


def test_files_get_every_column_whole() -> None:
    code = "from tests.cli.test_terminal_table import board, terminal_table; terminal_table.show(board(30))"
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert len(lines) == 31
    assert "0123456789abcdef" in lines[1]
