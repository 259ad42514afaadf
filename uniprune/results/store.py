"""The folder of stored runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from uniprune.errors import UserError
from uniprune.results.records import FORMAT, DatasetRecord, Environment, RunRecord
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.json_text import from_json, to_json


class Store:
    """A folder of runs.

    Args:
        root: the `--output` folder; created on first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, identity: str) -> Path:
        """Return the run's folder, created if missing.

        Raises:
            UserError: it cannot be created.
        """
        path = self.root / identity
        with explain_write(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def predictions(self, identity: str, dataset: str) -> Path:
        """Return the path of one benchmark's predictions, its folder created."""
        return self.folder(identity) / f"{dataset}.jsonl"

    def read(self, identity: str) -> RunRecord | None:
        """Return the stored record, or None.

        Raises:
            UserError: the file is damaged, or of another format than `FORMAT`.
        """
        path = self.root / identity / "record.json"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        try:
            return RunRecord.model_validate(from_json(content))
        except ValueError as error:  # also pydantic's
            raise _unreadable(path, content, error) from error

    def records(self) -> Iterator[RunRecord]:
        """Return all stored records, sorted by identity."""
        for path in sorted(self.root.glob("*/record.json")):
            if (record := self.read(path.parent.name)) is not None:
                yield record

    def write(self, record: RunRecord) -> None:
        """Replace the record atomically: readers find the old one or the new one, never a part.

        Raises:
            UserError: it cannot be written, or holds a number that is NaN or infinite.
        """
        path = self.folder(record.identity) / "record.json"
        try:
            text = to_json(record.model_dump(mode="json"), indent=1, ensure_ascii=False)
        except ValueError as error:
            raise UserError(f"{path} is left as it was: {error}") from error
        with explain_write(path):
            write_atomically(path, text + "\n")

    def update(self, new: RunRecord, dataset: str, entry: DatasetRecord, *environments: Environment) -> RunRecord:
        """Store one benchmark's entry and its environments, keeping what other processes stored of the run."""
        lock = self.folder(new.identity) / "record.lock"
        with explain_write(lock), FileLock(lock):
            old = self.read(new.identity) or new
            seen = list(old.environments)
            seen += [one for i, one in enumerate(environments) if one not in (*seen, *environments[:i])]
            record = old.model_copy(
                update={
                    "model": new.model,
                    "random": new.random,
                    "environments": seen,
                    "datasets": {**old.datasets, dataset: entry},
                }
            )
            self.write(record)
        return record


def _unreadable(path: Path, content: bytes, error: ValueError) -> UserError:
    """Return the message about a record that cannot be read."""
    try:
        found = json.loads(content)["format"]
    except (ValueError, KeyError, TypeError):
        found = FORMAT
    if found != FORMAT:
        return UserError(
            f"{path} is a run record of format {found!r}, written by another version of UniPrune; this one reads "
            f"format {FORMAT}. Run again into another --output, or move that file away"
        )
    reason = ", ".join(part.strip() for part in str(error).splitlines()[:3])
    return UserError(
        f"{path} is not a run record ({reason}); move it away: the predictions in its folder are kept, and running the "
        "same command again writes a new record from them"
    )
