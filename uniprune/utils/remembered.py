"""Facts that follow from source files alone, kept between commands, so that it needs none of their imports again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from uniprune import __version__
from uniprune.utils.files import write_atomically
from uniprune.utils.hashing import stable_hash
from uniprune.utils.json_text import from_json, to_json

FOLDER = Path.home() / ".cache" / "uniprune"
"""Folder of the kept files; each may be deleted at any time."""


def remembered(name: str, sources: Sequence[Path], make: Callable[[], Any], folder: Path | None = None) -> Any:
    """Return what `make` returns, as plain values of JSON, from a kept file while no source changes.

    Args:
        name: of the file.
        sources: folders of Python files; their names, sizes and times of change are compared.
        make: makes the value; not called if it is kept.
        folder: of the file; None for `FOLDER`. Where it cannot be written, nothing is kept.
    """
    path = (folder or FOLDER) / f"{name}.json"
    state = stable_hash([__version__, *(str(source) for source in sources), *map(_state, sources)])
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = from_json(path.read_bytes())
        if kept["state"] == state:
            return kept["value"]
    text = to_json({"state": state, "value": make()})
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text + "\n")
    return from_json(text)["value"]


def _state(source: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of every Python file in a folder."""
    files = sorted(source.rglob("*.py"))
    return [(str(file.relative_to(source)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
