"""Files that survive kills and full disks: written completely or not at all, or read up to their last complete line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout

from uniprune.errors import UserError
from uniprune.utils.json_text import from_json, to_json

T = TypeVar("T")

BLOCK = 1 << 16
"""Bytes read at a time when the end of a file is examined."""


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


@contextmanager
def explain_encoding(path: Path) -> Iterator[None]:
    """Turn a UnicodeDecodeError while reading `path` as UTF-8 into a UserError with the line and the remedy."""
    try:
        yield
    except UnicodeDecodeError as error:
        line = next((n for n, text in enumerate(path.read_bytes().split(b"\n"), 1) if not _is_utf8(text)), 1)
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


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


class JsonLines(Generic[T]):
    """An append-only file of JSON lines, shared by processes.

    Reading never writes. A line is stored completely or not at all: a last line that a kill cut short is skipped by
    readers and removed by the next append.

    Args:
        path: the file; created, with its folder, by the first append. Its lock is a file with the suffix ".lock".
        parse: converts a decoded line; raises ValueError for a line of another kind.
        what: noun phrase for a line in messages, as in "is not a stored prediction".
        remedy: end of the message about a damaged line.
    """

    def __init__(self, path: Path, parse: Callable[[Any], T], what: str, remedy: str) -> None:
        self.path, self._parse, self._what, self._remedy = path, parse, what, remedy
        self._lock = FileLock(path.with_suffix(".lock"))

    def read(self) -> list[T]:
        """Return the stored lines in order; none if the file does not exist.

        Raises:
            UserError: the file cannot be read, or a complete line of it is damaged.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        lines = []
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                lines.append(self._parse(from_json(line)))
            except ValueError as error:  # also pydantic's, which takes several lines
                reason = ", ".join(part.strip() for part in str(error).splitlines()[:3])
                raise UserError(f"{self.path} line {number} is not {self._what} ({reason}); {self._remedy}") from error
        return lines

    @contextmanager
    def locked(self, waiting: Callable[[Path], None] = lambda _: None) -> Iterator[None]:
        """Keep other processes from writing inside the block.

        Args:
            waiting: called once before waiting for a process that holds the lock.

        Raises:
            UserError: the lock cannot be created.
        """
        with explain_write(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                waiting(self.path)
                self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Store some lines: all of them are on disk when this returns.

        Raises:
            UserError: they cannot be written (disk full, …) or hold a number that is not finite, and the file is left
                as it was; or the file ends in something else than a JSON line.
        """
        data = self._encoded(lines)
        with self.locked(), explain_write(self.path):
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = self._cut(handle)
                try:
                    while data:
                        data = data[os.write(handle, data) :]
                    os.fsync(handle)
                except OSError:  # after an interrupt nothing is undone: complete lines count, a cut one is skipped
                    with suppress(OSError):
                        os.ftruncate(handle, size)
                    raise
            finally:
                os.close(handle)

    def rewrite(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replace all lines at once: readers find the old ones or the new ones.

        Raises:
            UserError: they cannot be written, or hold a number that is not finite; the old lines are kept.
        """
        data = self._encoded(lines)
        with self.locked(), explain_write(self.path):
            write_atomically(self.path, data)

    def remove(self) -> None:
        """Delete the file and its lock.

        Raises:
            UserError: they cannot be deleted.
        """
        with self.locked(), explain_write(self.path):
            self.path.unlink(missing_ok=True)
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _encoded(self, lines: Iterable[Mapping[str, Any]]) -> bytes:
        """Return JSON lines, in ASCII: readers that split at every Unicode line end still find one row per line."""
        try:
            return "".join(to_json(line) + "\n" for line in lines).encode()
        except ValueError as error:
            raise UserError(f"{self.path} is left as it was: in a new line, {error}") from error

    def _cut(self, handle: int) -> int:
        """Cut a last line without line end off the open file; return the size of the rest."""
        size = os.fstat(handle).st_size
        rest = _end_of_lines(handle, size)
        if rest < size:
            if os.pread(handle, 1, rest) != b"{":
                raise UserError(f"{self.path} ends in something that is no stored line; choose another file")
            os.ftruncate(handle, rest)
        return rest


def _end_of_lines(handle: int, size: int) -> int:
    """Return the offset after the last line end of an open file, reading from its end."""
    while size > 0:
        start = max(size - BLOCK, 0)
        found = os.pread(handle, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


def check_writable(path: Path) -> None:
    """Check that a file can be written, before anything is computed for it, and create its folder.

    Raises:
        UserError: it cannot be written.
    """
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            path.open("ab").close()
