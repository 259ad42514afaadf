"""An official file: where it must lie, whether it is the published one, its download."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.filesize import decimal

from uniprune.errors import UserError
from uniprune.evaluation.collection import download_command
from uniprune.evaluation.dataset import DataFile
from uniprune.utils.console import byte_progress

from .task import Task

LARGE = 64 * 2**20
"""Bytes from which on a bar is shown while a file is read: about a tenth of a second."""


@dataclass(frozen=True)
class OfficialFile:
    """The TSV file of one registered dataset (a `uniprune.evaluation.dataset.Source`)."""

    name: str
    task: Task

    def path(self, data_dir: Path) -> Path:
        """Where it must lie."""
        return data_dir / f"{self.task.kit_name}.tsv"

    def published(self) -> tuple[str, str]:
        """Its address and md5, from the kit's tables."""
        from .boot import boot

        dataset = boot().dataset_class(self.task.module, self.task.cls)
        return dataset.DATASET_URL[self.task.kit_name], dataset.DATASET_MD5[self.task.kit_name]

    def inspect(self, data_dir: Path) -> DataFile:
        """What lies there. A file that is there is read to its end."""
        path = self.path(data_dir)
        if not path.is_file():
            return DataFile(path, "absent")
        size, found = path.stat().st_size, _md5(path)
        try:
            _, expected = self.published()
        except UserError:  # VLMEvalKit is not installed: there is nothing to compare with
            return DataFile(path, "unchecked", size, found)
        return DataFile(path, "ok" if found == expected else "altered", size, found)

    def fetch(self, data_dir: Path) -> DataFile:
        """Download it, unless it is there. A file under its name is either complete and official or not ours.

        What a cut or an interrupt left of it is kept beside it, hidden, and continued.

        Raises:
            UserError: another file has its name; it cannot be reached, is cut off or not the published one; no room.
        """
        path = self.path(data_dir)
        url, expected = self.published()
        partial = path.with_name(f".{path.name}.partial")
        by_hand = f"To do it by hand, fetch {url} (md5 {expected}) and save it as {path}"
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{partial}.lock"):
                there = self.inspect(data_dir)
                if there.state == "altered":
                    raise UserError(f"{path} is not the official file and is left alone; {remedy(self.name, data_dir)}")
                if there.state == "ok":
                    return there
                found = _continued(url, partial, expected)
                if found != expected:
                    raise UserError(f"{self.name}: {url} sent another file (md5 {found}), which is not kept. {by_hand}")
                partial.replace(path)
        except OSError as error:
            reason = str(error) or type(error).__name__
            kept = f"{decimal(partial.stat().st_size)} are kept, " if partial.is_file() else ""
            raise UserError(
                f"{self.name}: cannot download {url} to {path}: {reason}; {kept}the same command goes on. {by_hand}"
            ) from error
        return DataFile(path, "ok", path.stat().st_size, found)


def remedy(name: str, data_dir: Path) -> str:
    """What to do about a file that is altered."""
    return f"move it away, then run: {download_command([name], data_dir)}"


def _continued(url: str, partial: Path, expected: str) -> str:
    """Download into `partial`; its md5. A wrong file does not stay, and one with a wrong beginning is fetched anew."""
    from .transfer import download

    beginning_kept = download(url, partial)
    found = _md5(partial)
    if found != expected and beginning_kept:
        partial.unlink()
        download(url, partial)
        found = _md5(partial)
    if found != expected:
        partial.unlink()
    return found


def _md5(path: Path) -> str:
    """Hexadecimal md5 of a file; a bar on a terminal where that takes a while."""
    console, digest = Console(stderr=True, quiet=path.stat().st_size < LARGE), hashlib.md5()
    with byte_progress(console) as bar, bar.open(path, "rb", description=f"checking {path.name}") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
