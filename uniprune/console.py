"""What commands print and write: results to stdout, everything else to stderr, files whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from uniprune.records import explain_write, write_atomically

if TYPE_CHECKING:
    from uniprune.board import Leaderboard


def show(board: Leaderboard) -> None:
    """Print a leaderboard; on its side where the terminal is too narrow for it."""
    console = stdout()
    texts = board.texts()
    # A column in which every row says the same tells nothing here; files keep them all.
    same = {"seed", "settings", "protocol", "layer", "judge"}
    keep = [i for i, column in enumerate(board.columns) if column not in same or len({line[i] for line in texts}) > 1]
    lines = [[line[i] for i in keep] for line in ([*board.columns], *texts)]
    width = sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True))
    lines, left = (lines, 2) if width <= console.width else ([list(c) for c in zip(*lines, strict=True)], 1)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(lines[0]):
        table.add_column(column, justify="left" if i < left else "right")
    for line in lines[1:]:
        table.add_row(*line)
    console.print(table)
    for note in board.notes:
        console.print(note, highlight=False, markup=False)


def write(path: Path, content: str) -> None:
    """Write a whole file. Raises UserError when that is not possible."""
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def say(line: str) -> None:
    """One line of results: those go to stdout, everything else to stderr."""
    sys.stdout.write(line + "\n")


def stdout() -> Console:
    """Standard output; wide enough for tables when it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 240)
