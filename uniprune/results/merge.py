"""Merge folders of runs into one: every run, benchmark and prediction of all, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniprune.errors import UserError
from uniprune.results.predictions import Prediction, parts
from uniprune.results.store import DATASET, RUN, Store
from uniprune.utils.files import JsonLines, explain_write, write_atomically
from uniprune.utils.json_text import from_json
from uniprune.utils.paths import PROGRAM

SHOWN = 5
"""Conflicts that a message names."""
DERIVED = (".fidelity.json", ".lock")
"""Ends of the names of files that are made again from the others."""


@dataclass(frozen=True)
class Copy:
    """A benchmark of a run in one folder.

    Attributes:
        root: the folder of runs.
        identity: the run.
        name: the benchmark.
        rows: row -> its stored line, as read.
    """

    root: Path
    identity: str
    name: str
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def files(self) -> tuple[Path, Path]:
        """The files of predictions and results."""
        folder = self.root / self.identity
        return folder / f"{self.name}.jsonl", folder / (self.name + DATASET)

    @property
    def source(self) -> object:
        """Data file and prompts that the rows were made from; None without results."""
        path = self.files[1]
        fields = from_json(path.read_bytes()) if path.is_file() else {}
        return (fields["data"], fields["prompts"]) if fields else None


def merge(roots: Sequence[Path], into: Path) -> list[str]:
    """Copy the runs of some folders into another one, which may have some already; the folders stay as they are.

    A benchmark that several have is copied with the results of the one that has the most rows; rows that only another
    one has are added to its file, so that the run scores them when its command is run again.

    Returns:
        What was copied, and what is left where it is, in words.

    Raises:
        UserError: nothing is written, because a folder has no run, a stored file is damaged, or two folders answer a
            row of a run differently or from other data; or a file cannot be written.
    """
    roots = [*dict.fromkeys(roots), *([into] if into.is_dir() and into not in roots else [])]
    copies: dict[tuple[str, str], list[Copy]] = {}
    homes: dict[str, Path] = {}
    for root in roots:
        runs = [record.identity for record in Store(root).records(lambda _: None)]
        if not runs and root != into:
            raise UserError(f"no run is stored in {str(root)!r}; name folders of runs (--output of `{PROGRAM}`)")
        for identity in runs:
            homes.setdefault(identity, root)
            for name in _benchmarks(root / identity):
                copies.setdefault((identity, name), []).append(Copy(root, identity, name, _rows(root, identity, name)))
    if problems := [problem for same in copies.values() for problem in _conflicts(same)]:
        more = f"\nand {len(problems) - SHOWN} more" * (len(problems) > SHOWN)
        raise UserError("nothing is merged:\n" + "\n".join(problems[:SHOWN]) + more)
    notes: list[str] = []
    for identity, root in homes.items():
        _copy(root / identity / RUN, into / identity / RUN)
    for same in copies.values():
        notes += _merged(same, into)
    left = [str(path) for root in roots if root != into for path in sorted(_others(root, {*homes}))]
    summary = f"{len(homes)} runs with {len(copies)} benchmarks from {len(roots)} folders are in {into}"
    return [summary, *notes, *[f"not copied: {', '.join(left)}"] * bool(left)]


def _merged(same: Sequence[Copy], into: Path) -> Iterator[str]:
    """Store one benchmark of a run; yield what is to be said of it."""
    largest = max(same, key=lambda one: (len(one.rows), one.files[1].is_file()))
    rows = dict(largest.rows)
    for one in same:
        rows |= {row: line for row, line in one.rows.items() if row not in rows}
    target = Copy(into, largest.identity, largest.name, rows)
    if parts(largest.files[0]) or len(rows) > len(largest.rows):
        with explain_write(target.files[0]):
            target.files[0].parent.mkdir(parents=True, exist_ok=True)
        JsonLines(target.files[0], dict, "a stored prediction", "").rewrite(rows.values())
        yield (
            f"{target.identity} {target.name}: {len(rows)} rows of {len(same)} folders together; running the command "
            "of this run again scores them"
        )
    elif largest.files[0].is_file():
        _copy(largest.files[0], target.files[0])
    if largest.files[1].is_file():
        _copy(largest.files[1], target.files[1])


def _conflicts(same: Sequence[Copy]) -> Iterator[str]:
    """Yield why copies of one benchmark cannot be merged."""
    first = same[0]
    for other in same[1:]:
        if None not in (first.source, other.source) and first.source != other.source:
            reason = "are of different data files or prompts"
        else:
            both = [row for row in first.rows if row in other.rows]
            unequal = [row for row in both if _answer(first.rows[row]) != _answer(other.rows[row])]
            if not unequal:
                continue
            reason = f"answer {len(unequal)} of {len(both)} rows differently, such as row {unequal[0]}"
        yield (
            f"{first.identity} {first.name}: {first.root} and {other.root} {reason}; move one of them away "
            f"(`{PROGRAM} compare {first.root} {other.root}` shows what differs)"
        )


def _answer(line: Mapping[str, Any]) -> tuple[object, object]:
    """Return what equal rows share: the predicted text, or the reason of its absence."""
    return line["prediction"], line.get("error")


def _benchmarks(folder: Path) -> list[str]:
    """Return the benchmarks with predictions or results in the folder of a run."""
    lines = [path.name.removesuffix(".jsonl").split(".part")[0] for path in folder.glob("*.jsonl")]
    return sorted({*lines, *(path.name.removesuffix(DATASET) for path in folder.glob(f"[!.]*{DATASET}"))})


def _rows(root: Path, identity: str, name: str) -> dict[str, Mapping[str, Any]]:
    """Return the stored lines of a benchmark, those of its parts included, each checked and kept as it is."""
    path = root / identity / f"{name}.jsonl"
    found: dict[str, Mapping[str, Any]] = {}
    for file in (path, *parts(path)):
        lines = JsonLines(file, _checked, "a stored prediction", "delete that line, its row is run again then").read()
        found |= {line["index"]: line for line in lines if line["index"] not in found}
    return found


def _checked(line: Any) -> Mapping[str, Any]:
    """Return a line if it is a prediction; raise ValueError if not."""
    Prediction.model_validate(line)
    return {**line}


def _others(root: Path, runs: set[str]) -> Iterator[Path]:
    """Yield files and folders that are no part of a run."""
    for path in root.iterdir():
        if path.name == "leaderboard.csv" or path.name.startswith("."):
            continue
        if path.name not in runs:
            yield path
            continue
        names = _benchmarks(path)
        known = {RUN, *(name + DATASET for name in names)}
        yield from (
            file
            for file in path.iterdir()
            if file.name not in known and file.suffix != ".jsonl" and not file.name.endswith(DERIVED)
        )


def _copy(source: Path, target: Path) -> None:
    """Copy a file atomically, unless it is there."""
    if target.exists() and target.samefile(source):
        return
    with explain_write(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, source.read_bytes())
