"""Rows of `serve-bench` on the page, as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from uniprune.latency.serving.rows import ServeFile
from uniprune.latency.serving.tables import notes, texts

FILE = "serve-bench.jsonl"
"""Name under which `serve-bench` stores its rows in a folder of runs."""


def served(folders: Iterable[Path]) -> dict[str, Any]:
    """Return the table of all rows that are stored in some folders of runs; empty without any.

    Raises:
        UserError: a file cannot be read.
    """
    found = [row for folder in folders for row in ServeFile(folder / FILE).rows.values()]
    if not found:
        return {"columns": [], "rows": [], "notes": []}
    columns, lines = texts(found)
    return {"columns": columns, "rows": lines, "notes": notes(found)}
