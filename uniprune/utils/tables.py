"""Tables as text: CSV for programs, Markdown for pages."""

from __future__ import annotations

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
    import pandas as pd  # takes half a second: only when a table is written

    table = list(rows)
    if extra := {name for row in table if isinstance(row, Mapping) for name in row} - {*columns}:
        raise ValueError(f"no column for {', '.join(sorted(extra))}")
    for name, number in not_finite([row if isinstance(row, Mapping) else [*row] for row in table]):
        raise ValueError(f"cell {name} is {number}; a number that does not exist must be an empty field")
    # As objects: pandas would make floats of integers in a column with an empty field.
    frame = pd.DataFrame(table, columns=list(columns), dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


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
