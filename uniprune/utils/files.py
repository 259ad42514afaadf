"""Files that survive kills and full disks: written whole or not at all, or read up to their last whole line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uniprune.errors import UserError


@contextmanager
def explain_write(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` (disk full, no permission, …) into a UserError with the remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; everything stored before is kept. "
            "Make room (or choose another --output) and run the same command again to resume"
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is complete or absent, also after a crash or on a full disk; text as UTF-8."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def whole_lines(path: Path) -> bytes:
    """Content of a file that grows by lines, without a last line that a kill cut short (see `cut_short_line`)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return data[: data.rfind(b"\n") + 1]


def cut_short_line(path: Path) -> None:
    """Cut a last line of JSON without its end off the file, before one is appended; its whole lines were read as ours.

    Raises:
        UserError: the file ends in something else, or cannot be written.
    """
    whole = len(whole_lines(path))
    if path.exists() and whole < path.stat().st_size:
        with path.open("rb") as file:
            file.seek(whole)
            if file.read(1) != b"{":
                raise UserError(f"{path} ends in something that is no stored line; choose another file")
        with explain_write(path):
            os.truncate(path, whole)


def check_writable(path: Path) -> None:
    """Raise UserError for a file that cannot be written, before anything is computed for it. Creates its folder."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            path.open("ab").close()
