"""The folder of stored runs; uniprune/results/records.py describes its files.

A record counts only where it belongs: its setup hashes to its identity, and its folder has that name. Files are written
atomically and read without writing; one that cannot be believed is left out by name and hides no other.
"""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from uniprune.errors import UserError
from uniprune.results.predictions import stored_rows
from uniprune.results.quick_json import quick_json
from uniprune.results.records import FORMAT, DatasetRecord, Environment, RunRecord
from uniprune.utils.files import explain_write, write_atomically
from uniprune.utils.json_text import to_json

RUN = "record.json"
"""File of a run's model and setup."""
DATASET = ".record.json"
"""End of the name of a benchmark's results."""
PREDICTIONS = re.compile(r"(.+?)(\.part[0-9]+)?\.jsonl")
"""Name of a file of predictions."""
AGAIN = "running the command of this run again, with --data {}, "
"""Remedy for results that lack something, before what it does."""


def refuse(problem: str) -> NoReturn:
    """Raise a problem with something stored as UserError."""
    raise UserError(problem)


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

    def answers(self, identity: str, dataset: str) -> Path:
        """Return the path of one benchmark's predictions, which may be missing; nothing is created."""
        return self.root / identity / f"{dataset}.jsonl"

    def size(self, identity: str, dataset: str) -> int:
        """Return the bytes of one benchmark's predictions, 0 without any."""
        path = self.answers(identity, dataset)
        return path.stat().st_size if path.exists() else 0

    def read(self, identity: str, datasets: Iterable[str] | None = None) -> RunRecord | None:
        """Return the stored record, or None.

        Args:
            identity: of the run.
            datasets: benchmarks to read; None for all.

        Raises:
            UserError: a file is damaged, of another format than `FORMAT`, or belongs elsewhere.
        """
        record = self._read_run(identity)
        if record is None:
            return None
        names = _recorded(_sizes(self.root / identity)) if datasets is None else datasets
        found = {name: entry for name in names if (entry := self.read_dataset(identity, name)) is not None}
        return record.model_copy(update={"datasets": found})

    def read_dataset(self, identity: str, dataset: str) -> DatasetRecord | None:
        """Return the stored results of one benchmark, or None.

        Raises:
            UserError: as for `read`.
        """
        path = self.root / identity / (dataset + DATASET)
        fields = _read_fields(path)
        if fields is None:
            return None
        _, run, benchmark = (fields.pop(name, None) for name in ("format", "identity", "benchmark"))
        if (run, benchmark) != (identity, dataset):
            raise UserError(
                f"{path} has the results of {benchmark!r} in run {run!r}, which do not belong there; move it into the "
                f"folder of that run, or away"
            )
        try:
            return DatasetRecord.model_validate(fields)
        except ValueError as error:
            raise _unreadable(path, error) from error

    def records(self, note: Callable[[str], None] = refuse) -> Iterator[RunRecord]:
        """Yield all runs, sorted by identity.

        Args:
            note: called with every reason why something stored is in no record, or why a score is in doubt. By default
                they are errors.
        """
        for folder in sorted(path for path in self.root.glob("*") if path.is_dir()):
            identity, sizes = folder.name, _sizes(folder)
            names, answered = _recorded(sizes), _answered(sizes)
            try:
                record = self._read_run(identity)
            except UserError as error:
                note(f"left out: {error}")
                continue
            if record is None:
                if answered.union(names):
                    note(f"left out: {folder} has answers, but no {RUN}; copy it there, or run its command again")
                continue
            datasets = {}
            for name in names:
                try:
                    entry = self.read_dataset(identity, name)
                except UserError as error:
                    note(f"left out: {error}")
                    continue
                if entry is not None:
                    datasets[name] = entry
                    alike = entry.size == sizes.get(f"{name}.jsonl", 0)  # or it was written since then
                    if entry.score is not None and not alike and entry.size != self.size(identity, name):
                        note(self._changed(identity, name, entry))
            for name in sorted(answered - set(names)):
                note(f"{identity} {name}: answers without a score: {AGAIN.format(name)}scores them.")
            yield record.model_copy(update={"datasets": datasets})

    def read_all(self, note: Callable[[str], None] = refuse) -> list[RunRecord]:
        """Return all runs, as `records` yields them.

        The garbage collector waits: it would visit the fields of all records again and again, a third of the time.
        """
        collecting = gc.isenabled()
        gc.disable()
        try:
            return list(self.records(note))
        finally:
            if collecting:
                gc.enable()

    def write(self, record: RunRecord) -> None:
        """Store a run and its benchmarks, each file atomically: readers find the old or the new one, never a part.

        Raises:
            UserError: it cannot be written, or holds a number that is NaN or infinite.
        """
        content = record.model_dump(mode="json", exclude={"datasets"})
        _write(self.folder(record.identity) / RUN, content)
        for name, entry in record.datasets.items():
            self._write_dataset(record.identity, name, entry)

    def update(self, new: RunRecord, dataset: str, entry: DatasetRecord, *environments: Environment) -> RunRecord:
        """Store a run and one benchmark's entry, with the environments of before; return the run with it.

        The caller holds the lock of the benchmark's predictions.
        """
        old = self._read_run(new.identity)
        if old != new.model_copy(update={"datasets": {}}):
            self.write(new.model_copy(update={"datasets": {}}))
        before = self.read_dataset(new.identity, dataset)
        seen = list(before.environments) if before else []
        seen += [one for i, one in enumerate(environments) if one not in (*seen, *environments[:i])]
        entry = entry.model_copy(update={"environments": seen})
        self._write_dataset(new.identity, dataset, entry)
        return new.model_copy(update={"datasets": {**new.datasets, dataset: entry}})

    def _write_dataset(self, identity: str, dataset: str, entry: DatasetRecord) -> None:
        """Store the results of one benchmark."""
        header = {"format": FORMAT, "identity": identity, "benchmark": dataset}
        _write(self.folder(identity) / (dataset + DATASET), header | entry.model_dump(mode="json"))

    def _read_run(self, identity: str) -> RunRecord | None:
        """Return the record of a run without its benchmarks, or None."""
        path = self.root / identity / RUN
        fields = _read_fields(path)
        if fields is None:
            return None
        try:
            record = RunRecord.model_validate(fields)
        except ValueError as error:  # also pydantic's
            raise _unreadable(path, error) from error
        if (expected := record.setup.identity()) != record.identity:
            raise UserError(
                f"{path} was altered: its setup is that of run {expected}, not of {record.identity}; move it away: "
                "running the same command again writes a new one"
            )
        if record.identity != identity:
            raise UserError(
                f"{path.parent} is a copy of run {record.identity}, which is no run of its own; move it away, or name "
                f"it {record.identity} if that is missing"
            )
        return record

    def _changed(self, identity: str, name: str, entry: DatasetRecord) -> str:
        """Return the note on a score of other predictions than those stored."""
        scored, rows = entry.answered + entry.refused, stored_rows(self.root / identity / f"{name}.jsonl")
        now = f"holds {rows} rows now" if rows < scored else "changed since then"
        return f"{identity} {name}: scored on {scored} rows, but {name}.jsonl {now}: {AGAIN.format(name)}mends that."


def _sizes(folder: Path) -> dict[str, int]:
    """Return the names of a folder's files with their bytes."""
    found = {}
    for file in os.scandir(folder):
        with suppress(FileNotFoundError):  # a temporary file that its process has renamed
            found[file.name] = file.stat().st_size
    return found


def _recorded(files: Iterable[str]) -> list[str]:
    """Return the benchmarks with stored results among the files of a run, sorted."""
    return sorted(name.removesuffix(DATASET) for name in files if name.endswith(DATASET) and name[0] != ".")


def _answered(sizes: Mapping[str, int]) -> set[str]:
    """Return the benchmarks with stored predictions among the files of a run with their sizes."""
    return {found[1] for name, size in sizes.items() if size and (found := PREDICTIONS.fullmatch(name))}


def _read_fields(path: Path) -> dict[str, Any] | None:
    """Return the fields of a record; None without the file.

    Raises:
        UserError: it cannot be read, or is of another format than `FORMAT`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    problem: Exception | None = None
    try:
        fields: dict[str, Any] = {**quick_json(content)}
        if "format" not in fields or (fields["format"] == FORMAT and "datasets" in fields):
            raise ValueError("it has other fields")
    except (ValueError, TypeError) as error:
        fields, problem = {"format": _format(content)}, error
    if (found := fields["format"]) != FORMAT:
        raise UserError(
            f"{path} is a record of format {found!r}, written by another version of UniPrune; this one reads format "
            f"{FORMAT}. Run again into another --output, or move that file away"
        )
    if problem is not None:
        raise _unreadable(path, problem) from problem
    return fields


def _format(content: bytes) -> object:
    """Return the format of a record that cannot be read; this one's if it has none."""
    try:
        return json.loads(content)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return FORMAT


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace a record atomically."""
    try:
        text = to_json(content, indent=1, ensure_ascii=False)
    except ValueError as error:
        raise UserError(f"{path} is left as it was: {error}") from error
    with explain_write(path):
        write_atomically(path, text + "\n")


def _unreadable(path: Path, error: Exception) -> UserError:
    """Return the message about a record that cannot be read."""
    reason = ", ".join(part.strip() for part in str(error).splitlines()[:3])
    return UserError(
        f"{path} is not a run record ({reason}); move it away: the predictions in its folder are kept, and running the "
        "same command again writes a new record from them"
    )
