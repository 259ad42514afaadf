"""An official file: where it must lie, whether it is the published one, its download by VLMEvalKit's own function."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from benchmarks._kit.task import Task
from uniprune.benchmark import DataFile, download_command
from uniprune.errors import UserError

PATIENCE = 60.0
"""Seconds without a byte after which a server is given up. The kit would wait for ever."""


@dataclass(frozen=True)
class OfficialFile:
    """The TSV file of one registered dataset (a `uniprune.benchmark.Source`)."""

    name: str
    task: Task

    def path(self, data_dir: Path) -> Path:
        """Where it must lie."""
        return data_dir / f"{self.task.kit_name}.tsv"

    def published(self) -> tuple[str, str]:
        """Its address and md5, from the kit's tables."""
        from benchmarks._kit.boot import boot

        dataset = boot().dataset_class(self.task.module, self.task.cls)
        return dataset.DATASET_URL[self.task.kit_name], dataset.DATASET_MD5[self.task.kit_name]

    def inspect(self, data_dir: Path) -> DataFile:
        """What lies there. A file that is there is read to its end."""
        path = self.path(data_dir)
        if not path.is_file():
            return DataFile(path, "absent")
        from benchmarks._kit.table import md5

        size, found = path.stat().st_size, md5(path)
        try:
            _, expected = self.published()
        except UserError:  # VLMEvalKit is not installed: there is nothing to compare with
            return DataFile(path, "unchecked", size, found)
        return DataFile(path, "ok" if found == expected else "altered", size, found)

    def fetch(self, data_dir: Path) -> DataFile:
        """Download it, unless it is there. A file under its name is either complete and official or not ours.

        Raises:
            UserError: another file has its name; it cannot be reached, is cut off or not the published one; no room.
        """
        from benchmarks._kit.table import md5

        path = self.path(data_dir)
        url, expected = self.published()
        partial = path.with_name(f".{path.name}.partial")
        by_hand = f"nothing was changed. To do it by hand, fetch {url} (md5 {expected}) and save it as {path}"
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{partial}.lock"):
                there = self.inspect(data_dir)
                if there.state == "altered":
                    raise UserError(f"{path} is not the official file and is left alone; {remedy(self.name, data_dir)}")
                if there.state == "ok":
                    return there
                try:
                    _download(url, partial)
                    found = md5(partial)
                    if found != expected:
                        raise UserError(f"{self.name}: {url} sent another file: md5 {found}, not {expected}; {by_hand}")
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            reason = str(error) or type(error).__name__
            raise UserError(f"{self.name}: cannot download {url} to {path}: {reason}; {by_hand}") from error
        return DataFile(path, "ok", path.stat().st_size, found)


def remedy(name: str, data_dir: Path) -> str:
    """What to do about a file that is altered."""
    return f"move it away, then run: {download_command([name], data_dir)}"


def _download(url: str, file: Path) -> None:
    """The kit's `download_file`: its progress bar on a terminal, nothing elsewhere. Raises OSError for any failure."""
    from benchmarks._kit.boot import boot, untouched

    download = boot().download_file
    bar = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with untouched(), _patience(), bar:
        try:
            download(url, str(file))
        except Exception as error:  # the kit raises a bare Exception that does not say why
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else OSError(str(cause or error)) from error


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """A limit on silence for sockets that are opened without one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
