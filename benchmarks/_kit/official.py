"""Official data files: path, comparison with the published md5, download."""

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
"""Bytes from which on reading a file shows a progress bar: about a tenth of a second."""


@dataclass(frozen=True)
class OfficialFile:
    """The TSV file of one registered dataset (a `uniprune.evaluation.dataset.Source`)."""

    name: str
    task: Task

    def path(self, data_dir: Path) -> Path:
        """Return its path."""
        return data_dir / f"{self.task.kit_name}.tsv"

    def published(self) -> tuple[str, str]:
        """Return its address and md5, from the kit's tables.

        Raises:
            UserError: VLMEvalKit is not installed, or its tables lack the file.
        """
        from .boot import TESTED, boot

        kit, name = boot(), self.task.kit_name
        dataset = kit.dataset_class(self.task.module, self.task.cls)
        url, md5 = dataset.DATASET_URL.get(name), dataset.DATASET_MD5.get(name)
        if not url or not md5:
            raise UserError(f"{self.name}: {kit.version} has no address and md5 of {name}; {TESTED}")
        return url, md5

    def inspect(self, data_dir: Path) -> DataFile:
        """Check the file at the path; it is read to its end."""
        path = self.path(data_dir)
        if not path.is_file():
            return DataFile(path, "absent")
        size, found = path.stat().st_size, file_md5(path)
        try:
            _, expected = self.published()
        except UserError:  # VLMEvalKit is not installed, or has no md5 of the file: nothing to compare with
            return DataFile(path, "unchecked", size, found)
        return DataFile(path, "ok" if found == expected else "altered", size, found)

    def fetch(self, data_dir: Path) -> DataFile:
        """Download it, unless it exists. A file under its name is either complete and official or somebody else's.

        A partial download is kept in the same folder, hidden, and continued.

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
                present = self.inspect(data_dir)
                if present.state == "altered":
                    raise UserError(f"{path} is not the official file and is left alone; {remedy(self.name, data_dir)}")
                if present.state == "ok":
                    return present
                found = _continued(url, partial, expected)
                if found != expected:
                    raise UserError(f"{self.name}: {url} sent another file (md5 {found}), which is not kept. {by_hand}")
                partial.replace(path)
        except OSError as error:
            reason = str(error) or type(error).__name__
            kept = f"{decimal(partial.stat().st_size)} are kept, " if partial.is_file() else ""
            raise UserError(
                f"{self.name}: cannot download {url} to {path}: {reason}; {kept}the same command continues. {by_hand}"
            ) from error
        return DataFile(path, "ok", path.stat().st_size, found)


def remedy(name: str, data_dir: Path) -> str:
    """Return the remedy for a file that is altered."""
    return f"move it away, then run: {download_command([name], data_dir)}"


def _continued(url: str, partial: Path, expected: str) -> str:
    """Download into `partial` and return its md5; delete a wrong file, fetch one with a wrong beginning anew."""
    from .transfer import download

    beginning_kept = download(url, partial)
    found = file_md5(partial)
    if found != expected and beginning_kept:
        partial.unlink()
        download(url, partial)
        found = file_md5(partial)
    if found != expected:
        partial.unlink()
    return found


def file_md5(path: Path) -> str:
    """Return the hexadecimal md5 of a file; a large one shows a progress bar on a terminal."""
    console, digest = Console(stderr=True, quiet=path.stat().st_size < LARGE), hashlib.md5()
    with byte_progress(console) as bar, bar.open(path, "rb", description=f"checking {path.name}") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
