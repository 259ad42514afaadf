"""Tables as text: CSV for programs, Markdown for pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from uniprune.errors import UserError
from uniprune.utils.json_text import not_finite

END = "<!-- end of the table -->"
"""Line after a generated table of a page."""


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any] | Sequence[Any]]) -> str:
    """Return comma-separated values with a header line, numbers unrounded.

    Args:
        columns: column names in order.
        rows: a mapping from column to value, or the values in the order of `columns`. A value that is missing or None
            is an empty field.

    Raises:
        ValueError: a row has a value that belongs to none of the columns, or a number that is NaN or infinite.
    """
    given = list(rows)
    if extra := {name for row in given if isinstance(row, Mapping) for name in row} - {*columns}:
        raise ValueError(f"no column for {', '.join(sorted(extra))}")
    for name, number in not_finite([row if isinstance(row, Mapping) else [*row] for row in given]):
        raise ValueError(f"cell {name} is {number}; a number that does not exist must be an empty field")
    table = [[row.get(name) for name in columns] if isinstance(row, Mapping) else row for row in given]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(table)
    return file.getvalue()


def to_markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a GitHub table of texts in the order of `columns`."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def with_table(page: str, begin: str, table: Callable[[], str]) -> str:
    """Return a page with a Markdown table, made if there is a place for it, between the lines `begin` and `END`.

    Raises:
        UserError: it has no such lines.
    """
    head, found, rest = page.partition(begin)
    _, end, tail = rest.partition(END)
    if not found or not end:
        raise UserError(f"the page has no place for the table; expected the lines {begin!r} and {END!r}")
    return f"{head}{begin}\n\n{table()}\n{END}{tail}"
