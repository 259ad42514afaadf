"""Tables fit every terminal: nothing is cut, whatever the way that is left."""

from __future__ import annotations

import random

import pytest
from rich.console import Console

from uniprune.utils import terminal
from uniprune.utils.terminal import Column, columns, say_wrapped, show_table

NUMBERS = [f"number {i} ms" for i in range(8)]
HEADS = columns("model", "method", right=NUMBERS, prose=["idea"])
IDEA = "keeps [0] the tokens that are most diverse, by greedy max-min"
ROWS = [["tiny", f"method-{i}", *(f"{1000.25 * i:.3f} [0.2]" for _ in NUMBERS), IDEA] for i in range(4)]


@pytest.fixture
def width(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    number: int = request.param
    monkeypatch.setattr(terminal, "stdout", lambda needed=0: Console(width=number))
    return number


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [400, 200, 120, 80, 60], indirect=True)
def test_every_cell_is_there_and_no_line_is_longer_than_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    show_table(HEADS, ROWS, keys=2)
    lines = shown(capsys)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    text = "\n".join(lines)
    for name, *cells in zip(NUMBERS, *(row[2:-1] for row in ROWS), strict=True):
        assert name in text
        assert all(cell in text for cell in cells)
    assert sorted(text.split()).count("max-min") == 4, "ideas are wrapped between words"
    for part in text.split("\n\n"):
        assert part.split()[:2] == ["model", "method"], "every part names its rows"


@pytest.mark.parametrize("width", [40], indirect=True)
def test_a_table_on_its_side_where_it_fits(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_table(columns("method", right=NUMBERS), [row[1:-1] for row in ROWS[:1]])
    lines = shown(capsys)
    assert [line.split()[-2:] for line in lines] == [["method", "method-0"], *[["0.000", "[0.2]"]] * 8]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [24], indirect=True)
def test_row_by_row_where_nothing_else_fits(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_table(HEADS, ROWS, keys=2)
    lines = shown(capsys)
    assert max(map(len, lines)) <= width
    assert lines.count("tiny") == 4
    assert "1000.250" in " ".join(lines)


@pytest.mark.parametrize("width", [80], indirect=True)
def test_wide_characters_markup_and_empty_tables(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_table(columns("name", right=["n"]), [["[bold]视觉[/]", "1"], ["b", "20"]], apart={1})
    assert shown(capsys) == ["name            n", "[bold]视觉[/]   1", "", "b              20"]
    show_table(columns("name", right=["n"]), [])
    assert shown(capsys) == ["name  n"]


def test_any_table_in_any_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    for _ in range(60):
        number = draw.randint(30, 120)
        monkeypatch.setattr(terminal, "stdout", lambda needed=0, number=number: Console(width=number))
        heads = [Column(f"c{i}", draw.random() < 0.5, draw.random() < 0.3) for i in range(draw.randint(2, 14))]
        rows = [
            [
                " ".join("x" * draw.randint(1, 12) for _ in range(draw.randint(1, 6 if head.prose else 1)))
                for head in heads
            ]
            for _ in range(draw.randint(1, 12))
        ]
        show_table(heads, rows, keys=draw.randint(1, min(2, len(heads) - 1)))
        lines = shown(capsys)
        assert max(map(len, lines)) <= number
        words = " ".join(lines).split()
        for row in rows:
            assert {word for cell in row for word in cell.split()} <= {*words}


def test_files_get_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(HEADS, ROWS, keys=2)
    lines = shown(capsys)
    assert len(lines) == 5
    assert lines[1].endswith(IDEA)
    say_wrapped(IDEA * 5, indent="  ")
    assert shown(capsys) == ["  " + IDEA * 5]
