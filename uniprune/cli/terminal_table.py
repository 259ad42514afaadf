"""The leaderboard in a terminal, fitted to its width."""

from __future__ import annotations

from rich.table import Table

from uniprune.results.table import FILES, ResultTable
from uniprune.utils.console import stdout

PRIORITY = (
    "model",
    "method",
    "ratio",
    "average",
    "rows",
    "rank",
    "budget group",
    "relative %",
    "from",
    "visual tokens",
    "net speed-up",
    "net ceiling",
    "batch",
    "prefill ms",
    "method ms",
    "total ms",
    "TFLOPs",
    "agreement %",
    "first-token KL",
    "batch TTFT ms",
    "KV MB",
)
"""Columns of a leaderboard that are dropped last where there is no room for all."""

Lines = list[list[str]]


def show(board: ResultTable, whole: str = "leaderboard.csv") -> None:
    """Print a leaderboard; if the terminal is too narrow, transposed, or else without its least important columns.

    An empty line parts budget groups.

    Args:
        board: the table.
        whole: file or option that has all columns.
    """
    texts = board.texts()
    # These columns are not shown where all rows agree; files keep them, and notes give the rows left out.
    same = {"seed", "settings", "protocol", "question", "layer", "judge", "left out", "batch", "device"}
    offered = [(i, column) for i, column in enumerate(board.columns) if column not in (*FILES, *board.details)]
    keep = [i for i, column in offered if column not in same or len({line[i] for line in texts}) > 1]
    lines, left, dropped = [[line[i] for i in keep] for line in ([*board.columns], *texts)], 2, 0
    apart = board.apart()
    console = stdout(_width(lines))
    room = console.width
    if _width(lines) > room:
        turned = [list(column) for column in zip(*lines, strict=True)]
        if _width(turned) <= room:
            lines, left, apart = turned, 1, set()
        else:
            lines, dropped = _narrowed(lines, room)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(lines[0]):
        table.add_column(column, justify="left" if i < left else "right")
    for i, line in enumerate(lines[1:]):
        if i in apart:
            table.add_row()
        table.add_row(*line)
    console.print(table)
    if dropped:
        hint = f"{dropped} columns do not fit here; {whole} has them, and a wider terminal shows them."
        console.print(hint, highlight=False)
    for note in board.notes:
        console.print(note, highlight=False, markup=False)


def _width(lines: Lines) -> int:
    """Return the characters that a table of these lines takes."""
    return sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True))


def _narrowed(lines: Lines, room: int) -> tuple[Lines, int]:
    """Return the most important columns that fit, in their own order, and the number of the others."""
    order = [lines[0].index(name) for name in PRIORITY if name in lines[0]]
    chosen: list[int] = []
    for i in order:
        if _width([[line[k] for k in (*chosen, i)] for line in lines]) <= room:
            chosen.append(i)
    chosen.sort()
    return [[line[i] for i in chosen] for line in lines], len(lines[0]) - len(chosen)
