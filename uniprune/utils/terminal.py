"""Tables in a terminal: always within its width, names and numbers never cut.

`show_table` tries, in this order: the table as it is; with texts wrapped between words; on its side; in parts, one
below the other, each with the leading columns; row by row. Where standard output is a file, lines are as long as they
need to be.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uniprune.utils.console import stdout

GAP = 2
"""Blanks between columns."""
NARROWEST = 20
"""Characters that a wrapped text has at least."""

Cell = str | Text
"""A cell; a `Text` has a style."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: heading.
        right: whether cells end at the same place, as numbers do.
        prose: whether cells may be wrapped between words.
    """

    name: str
    right: bool = False
    prose: bool = False


Lines = list[tuple[Cell, ...]]


def columns(*left: str, right: Collection[str] = (), prose: Collection[str] = ()) -> list[Column]:
    """Return columns: those in `left`, those in `right`, then those in `prose`, in this order."""
    return [
        *map(Column, left),
        *(Column(name, right=True) for name in right),
        *(Column(name, prose=True) for name in prose),
    ]


def show_table(
    heads: Sequence[Column], rows: Sequence[Sequence[Cell]], keys: int = 1, apart: Collection[int] = frozenset()
) -> None:
    """Print a table on standard output.

    Args:
        heads: the columns.
        rows: cells in the order of the columns.
        keys: leading columns that name a row; every part of a divided table repeats them.
        apart: places of rows that an empty line precedes.
    """
    lines: Lines = [tuple(row) for row in rows]
    natural = sum(_widths(heads, lines)) + GAP * max(len(heads) - 1, 0)
    console = stdout(max(natural, 1))
    for block in fitted(heads, lines, keys, console.width, apart):
        console.print(block, highlight=False)


def fitted(
    heads: Sequence[Column], lines: Lines, keys: int, room: int, apart: Collection[int] = frozenset()
) -> Iterator[Table | Text]:
    """Yield what is printed of a table in a terminal of `room` characters."""
    widths = _widths(heads, lines)
    if (fit := _wrapped(heads, lines, widths, room)) is not None:
        yield _table(heads, lines, fit, apart)
        return
    turned = [Column(heads[0].name), *(Column(_plain(line[0]), right=True) for line in lines)]
    across: Lines = [(head.name, *(line[i] for line in lines)) for i, head in enumerate(heads) if i]
    if sum(across_widths := _widths(turned, across)) + GAP * len(lines) <= room:
        yield _table(turned, across, across_widths)
        return
    parts = _parts(heads, lines, widths, keys, room)
    if parts is None:
        yield from _one_by_one(heads, lines, room)
        return
    for number, part in enumerate(parts):
        if number:
            yield Text()
        some, cells = [heads[i] for i in part], [tuple(line[i] for i in part) for line in lines]
        fit = _wrapped(some, cells, [widths[i] for i in part], room)
        yield _table(some, cells, fit or [widths[i] for i in part], apart)


def _parts(
    heads: Sequence[Column], lines: Lines, widths: Sequence[int], keys: int, room: int
) -> list[list[int]] | None:
    """Return the columns of every part of a divided table; None if one does not fit beside the leading columns."""
    lead = list(range(keys))
    parts: list[list[int]] = []
    for i in range(keys, len(heads)):
        for chosen in (*parts[-1:], lead):
            some = [*chosen, i]
            cells = [tuple(line[k] for k in some) for line in lines]
            if _wrapped([heads[k] for k in some], cells, [widths[k] for k in some], room) is not None:
                break
        else:
            return None
        if chosen is lead:
            parts.append(some)
        else:
            parts[-1] = some
    return parts or None


def _one_by_one(heads: Sequence[Column], lines: Lines, room: int) -> Iterator[Text]:
    """Yield every row as lines of heading and cell, wrapped between words; only words longer than a line are folded."""
    label = max((cell_len(head.name) for head in heads[1:]), default=0) + GAP
    console = Console(width=max(room - label, 1))
    for line in lines:
        yield _text(line[0])
        for head, cell in zip(heads[1:], line[1:], strict=True):
            for number, piece in enumerate(_text(cell).wrap(console, console.width, overflow="fold")):
                yield Text.assemble("" if number else head.name.ljust(label), " " * label * bool(number), piece)


def _wrapped(heads: Sequence[Column], lines: Lines, widths: Sequence[int], room: int) -> list[int] | None:
    """Return the widths of columns that fit, texts narrower than they are; None if that is not enough."""
    room -= GAP * max(len(heads) - 1, 0)
    if sum(widths) <= room:
        return [*widths]
    floors = [_floor(head, [line[i] for line in lines], widths[i]) for i, head in enumerate(heads)]
    if sum(floors) > room:
        return None
    spare, total = room - sum(floors), sum(widths) - sum(floors)
    return [floor + spare * (width - floor) // total for floor, width in zip(floors, widths, strict=True)]


def _floor(head: Column, cells: Sequence[Cell], width: int) -> int:
    """Return the least width of a column."""
    if not head.prose:
        return width
    words = [cell_len(word) for cell in (head.name, *cells) for word in _plain(cell).split()]
    return min(width, max(NARROWEST, *words, 0))


def _table(heads: Sequence[Column], lines: Lines, widths: Sequence[int], apart: Collection[int] = frozenset()) -> Table:
    """Return a table with columns of these widths."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0), collapse_padding=True)
    for head, width in zip(heads, widths, strict=True):
        table.add_column(
            Text(head.name), justify="right" if head.right else "left", width=width, no_wrap=not head.prose
        )
    for number, line in enumerate(lines):
        if number in apart:
            table.add_row()
        table.add_row(*map(_text, line))
    return table


def _widths(heads: Sequence[Column], lines: Lines) -> list[int]:
    """Return the characters that the longest cell of every column takes."""
    cells = zip(*lines, strict=True) if lines else [()] * len(heads)
    return [max(map(cell_len, (head.name, *map(_plain, column)))) for head, column in zip(heads, cells, strict=True)]


def _plain(cell: Cell) -> str:
    """Return the characters of a cell."""
    return cell.plain if isinstance(cell, Text) else cell


def _text(cell: Cell) -> Text:
    """Return a cell that rich does not read as markup."""
    return cell if isinstance(cell, Text) else Text(cell)


def say_wrapped(text: str, indent: str = "") -> None:
    """Print a line of results; in a terminal wrapped between words, later lines indented."""
    if not sys.stdout.isatty():
        sys.stdout.write(indent + text + "\n")
        return
    console = stdout()
    width = max(console.width - len(indent), 1)
    for line in Text(text).wrap(console, width, overflow="fold"):
        console.print(Text(indent) + line, highlight=False)
