"""The leaderboard in a terminal, fitted to its width."""

from __future__ import annotations

from rich.cells import cell_len

from uniprune.results.table import FILES, ResultTable
from uniprune.utils.console import stdout
from uniprune.utils.terminal import GAP, Column, say_wrapped, show_table

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

USUAL = (
    *("model", "method", "ratio", "layer", "protocol", "question", "seed", "settings"),
    *("average", "rank", "budget group", "relative %", "visual tokens", "net speed-up", "rows", "left out"),
)
"""Columns shown, with those of the benchmarks, where a reader chooses none."""
NAMES = ("model", "method", "ratio")
"""Columns that name a row; every part of a divided table repeats them."""

Lines = list[list[str]]


def show(board: ResultTable, whole: str = "leaderboard.csv", complete: bool = False) -> None:
    """Print a leaderboard; if the terminal is too narrow, transposed, or else without its least important columns.

    An empty line parts budget groups.

    Args:
        board: the table.
        whole: file or option that has all columns.
        complete: leave out no column: a terminal that is too narrow gets parts, one below the other.
    """
    texts = board.texts()
    # These columns are not shown where all rows agree; files keep them, and notes give the rows left out.
    same = {"seed", "settings", "protocol", "question", "layer", "judge", "left out", "batch", "device"}
    offered = [(i, column) for i, column in enumerate(board.columns) if column not in (*FILES, *board.details)]
    keep = [i for i, column in offered if complete or column not in same or len({line[i] for line in texts}) > 1]
    lines, dropped = [[line[i] for i in keep] for line in ([*board.columns], *texts)], 0
    room = stdout(_width(lines)).width
    if not complete and room < min(_width(lines), _width([list(column) for column in zip(*lines, strict=True)])):
        lines, dropped = _narrowed(lines, room)
    heads = [Column(name, right=name not in ("model", "method")) for name in lines[0]]
    show_table(heads, lines[1:], keys=sum(name in NAMES for name in lines[0]) or 1, apart=board.apart())
    if dropped:
        say_wrapped(f"{dropped} columns do not fit here; {whole} has them, and a wider terminal shows them.")
    for note in board.notes:
        say_wrapped(note)


def _width(lines: Lines) -> int:
    """Return the characters that a table of these lines takes."""
    return sum(max(map(cell_len, column)) + GAP for column in zip(*lines, strict=True)) - GAP


def _narrowed(lines: Lines, room: int) -> tuple[Lines, int]:
    """Return the most important columns that fit, in their own order, and the number of the others."""
    order = [lines[0].index(name) for name in PRIORITY if name in lines[0]]
    chosen: list[int] = []
    for i in order:
        if _width([[line[k] for k in (*chosen, i)] for line in lines]) <= room:
            chosen.append(i)
    chosen.sort()
    return [[line[i] for i in chosen] for line in lines], len(lines[0]) - len(chosen)
