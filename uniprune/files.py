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
    """Content of a file that grows by lines; a last line that a kill cut short is cut off the file, too."""
    if not path.exists():
        return b""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with explain_write(path):
            os.truncate(path, len(whole))
    return whole
