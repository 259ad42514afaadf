"""Files that survive kills and full disks: written whole or not at all, or read up to their last whole line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout

from uniprune.errors import UserError

T = TypeVar("T")


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


class JsonLines(Generic[T]):
    """An append-only file of JSON lines: reading never writes, an append is stored whole or not at all.

    A last line that a kill cut short is skipped by readers and removed by the next append.

    Args:
        path: the file; created, with its folder, by the first append.
        parse: turns a decoded line into what it stores; raises ValueError for a line that is none.
        what: the noun for a line in messages, as in "is not a stored answer".
        remedy: ends the message about a damaged line.
    """

    def __init__(self, path: Path, parse: Callable[[Any], T], what: str, remedy: str) -> None:
        self.path, self._parse, self._what, self._remedy = path, parse, what, remedy
        self._lock = FileLock(path.with_suffix(".lock"))

    def read(self) -> list[T]:
        """Return the stored lines in order; none if the file does not exist.

        Raises:
            UserError: the file cannot be read, or a whole line of it is damaged.
        """
        lines = []
        for number, line in enumerate(self._whole().splitlines(), start=1):
            try:
                lines.append(self._parse(json.loads(line)))
            except ValueError as error:  # pydantic's errors are among them
                reason = str(error).splitlines()[0]
                raise UserError(f"{self.path} line {number} is not {self._what} ({reason}); {self._remedy}") from error
        return lines

    @contextmanager
    def locked(self, waiting: Callable[[Path], None] = lambda _: None) -> Iterator[None]:
        """Keep other processes from appending inside the block; `waiting` is called once if one of them is at it."""
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
            UserError: they cannot be written (disk full, …), and the file holds what it held before; or the file ends
                in something that is no cut line of this kind.
        """
        # ASCII: readers that split at every Unicode line end still see one row per line.
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self.locked(), explain_write(self.path):
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = self._cut(handle)
                try:
                    while data:
                        data = data[os.write(handle, data) :]
                    os.fsync(handle)
                except OSError:  # an interrupt needs no care: a cut line is skipped, a whole one is stored
                    with suppress(OSError):
                        os.ftruncate(handle, size)
                    raise
            finally:
                os.close(handle)

    def rewrite(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replace the whole file at once: readers find the old lines or the new ones.

        Raises:
            UserError: it cannot be written; the old lines are kept.
        """
        with self.locked(), explain_write(self.path):
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def remove(self) -> None:
        """Delete the file and its lock."""
        self.path.unlink(missing_ok=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def _whole(self) -> bytes:
        """Content up to the last line end."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        return data[: data.rfind(b"\n") + 1]

    def _cut(self, handle: int) -> int:
        """Cut a last line without its end off the open file; return the size of the rest."""
        size, whole = os.fstat(handle).st_size, len(self._whole())
        if whole < size:
            if os.pread(handle, 1, whole) != b"{":
                raise UserError(f"{self.path} ends in something that is no stored line; choose another file")
            os.ftruncate(handle, whole)
        return whole


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
