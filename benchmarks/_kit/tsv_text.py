"""Text of a TSV file: lines that pandas, and VLMEvalKit with it, would read as something else without an error."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from uniprune.errors import UserError
from uniprune.utils.files import explain_encoding

_LONG = re.compile(r'[^"\t\n]{64,}')
"""Text that is irrelevant here, such as images: Python's csv module refuses cells above 131,072 characters."""


def check_text(path: Path) -> None:
    """Check the encoding and the quotation marks of a TSV file.

    A cell that begins with a quotation mark ends at the next single one, if need be lines later. Where that is followed
    by more text, or where the lines between are rows themselves, the first mark was meant as text.

    Raises:
        UserError: with the number of the first line that is not as it was meant.
    """
    lines: list[str] = []
    with explain_encoding(path), path.open(encoding="utf-8-sig") as file:
        _check_quotes(path, _shortened(path, file, lines), lines)


def _check_quotes(path: Path, text: Iterator[str], lines: list[str]) -> None:
    """Check every record against its `lines`, which grow as the reader consumes `text`."""
    reader, columns = csv.reader(text, delimiter="\t", strict=True), 0
    while True:
        first = reader.line_num + 1
        lines.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _quotation_error(path, first, reader.line_num) from error
        columns = columns or len(cells)
        complete = sum(line.count("\t") == columns - 1 for line in lines)
        if complete > 1 or (complete == len(lines) and len(cells) < columns):
            raise _quotation_error(path, first, reader.line_num)


def _shortened(path: Path, file: Iterable[str], lines: list[str]) -> Iterator[str]:
    """Yield lines with long texts cut, and append them to `lines`.

    Raises:
        UserError: a null character: ASCII in UTF-16 without a byte order mark is valid UTF-8.
    """
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise UserError(f"{path}, line {number}: null characters, as in UTF-16; save the file as UTF-8")
        lines.append(_LONG.sub("…", line))
        yield lines[-1]


def _quotation_error(path: Path, first: int, last: int) -> UserError:
    """Return the message about a record from the first to the last line."""
    swallowed = "cells of its line" if first == last else f"lines {first} to {last}"
    return UserError(
        f"{path}, line {first}: an unclosed quotation mark swallows {swallowed}; put a cell that begins with one, or "
        'has a tab or line break, into quotation marks and double those inside ("""Stop"" sign")'
    )
