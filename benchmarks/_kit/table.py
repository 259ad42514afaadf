"""Read a benchmark's TSV: rows that cannot be run or scored are found, named and left out before the run."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from uniprune.errors import UserError

from . import images
from .faults import Row, filled, literal_fault
from .golds import gold_fault
from .task import Task
from .tsv_text import check_text

if TYPE_CHECKING:
    from .boot import Kit

_BROKEN_LINE = re.compile(r"line (\d+): (expected \d+ fields, saw \d+)")
_PLAIN_INDEX = re.compile(r"(?!(?:row|line) \d+\Z)[\w\-./ ]+")
"""An index that is no code, and not the name of a row without one."""


@dataclass(frozen=True)
class KitTable:
    """A read TSV.

    Attributes:
        names: the usable rows' indexes, letter by letter: 1, 01 and 1.0 are three rows.
        frame: their cells that VLMEvalKit gets, in which it tells rows apart by labels of ours (`Task.labels`).
        visuals: base64 texts of their images, references followed; or paths of their videos.
        faulty: index (or "line N", "row N" if there is none) -> fault of every other row.
        groups: for every usable row, the positions of the rows scored together with it.
    """

    names: list[str]
    frame: Any
    visuals: list[list[str]]
    faulty: dict[str, str]
    groups: list[tuple[int, ...]]


def md5(path: Path) -> str:
    """Return the hexadecimal md5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def read_table(path: Path, task: Task, kit: Kit, *, official: bool = False) -> KitTable:
    """Read and check a TSV file.

    Every cell is the text in the file. Only an official file is read as VLMEvalKit does, whatever its quotation marks,
    with pandas' column types (a 3 above an empty cell is shown as 3.0); there a row is faulty if that loses a text.

    Raises:
        UserError: the file is no TSV, lacks a column, or has no usable row.
    """
    if not official:
        check_text(path)
    text, faulty = _read(path)
    lacking = [name for name in task.columns if name not in text]
    if lacking:
        raise UserError(
            f"{path} is not a {task.kit_name} table: it has no column {', '.join(map(repr, lacking))}, "
            f"only {', '.join(text)}"
        )
    cells = text.pop("image") if task.video is None else ()
    kept = [name for name in text if name in task.cells]
    text = text.reindex(columns=[*kept, *(name for name in task.optional if name not in text)], fill_value="")
    rows = text.to_dict("records")
    names = _names(rows, task)
    required = [name for name in task.columns if name != "image"]
    # The kit sorts the names of the groups it reports on, and fails on a column that is filled in some rows only.
    required += [name for name in task.all_or_none if name in text and text[name].map(filled).any()]
    faults = _lost(text) if official else {}
    for i, reason in _row_faults(rows, names, task, kit, required).items():
        faults.setdefault(i, reason)
    if task.video is None:
        decoded = images.resolve({name: cell for name, cell in zip(names, cells, strict=True) if filled(cell)})
        wrong = _image_faults(rows, names, decoded, task)
    else:
        decoded = {name: [str(path.parent / task.video(row))] for name, row in zip(names, rows, strict=True)}
        wrong = {i: "its video does not exist" for i, name in enumerate(names) if not Path(decoded[name][0]).exists()}
    for i, reason in wrong.items():
        faults.setdefault(i, reason)
    groups = _group(rows, names, faults, task)
    # Other splits are left out; a row without a split is faulty.
    used = [i for i, row in enumerate(rows) if task.split is None or row["split"] in (task.split, "")]
    faulty |= {names[i]: faults[i] for i in used if i in faults}
    good = [i for i in used if i not in faults]
    if not good:
        first = next(iter(faulty.items()), None)
        raise UserError(f"{path} has no usable row" + (f"; {first[0]}: {first[1]}" if first else ""))
    place = {row: position for position, row in enumerate(good)}
    together = [tuple(place[member] for member in groups[row]) for row in good]
    chosen = text.iloc[good]
    frame = _typed(chosen) if official else chosen.where(chosen.map(filled)).reset_index(drop=True)
    return KitTable(
        names=[names[i] for i in good],
        frame=_labelled(frame, [rows[i] for i in good], together, task),
        visuals=[list(decoded[names[i]]) for i in good],
        faulty=faulty,
        groups=together,
    )


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    """Read all cells as text; return also the lines with too many fields."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            text = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, on_bad_lines="warn")
    except (ValueError, OSError) as error:  # pandas' parser and decoding errors are ValueErrors
        raise UserError(f"{path} cannot be read as a TSV table: {error}") from error
    broken = _BROKEN_LINE.findall(" ".join(str(w.message) for w in caught))
    return text, {f"line {line}": f"{reason} (a stray tab?)" for line, reason in broken}


def _names(rows: Sequence[Row], task: Task) -> list[str]:
    """Name each row: by its index, or "row N" if that is missing, no plain text, or was used before."""
    names: list[str] = []
    taken: set[str] = set()
    for i, row in enumerate(rows, 1):
        index, name = row["index"], task.name(row)
        own = filled(index) and _PLAIN_INDEX.fullmatch(index) and name not in taken
        names.append(name if own else f"row {i}")
        taken.add(names[-1])
    return names


def _row_faults(
    rows: list[dict[str, Any]], names: list[str], task: Task, kit: Kit, required: Sequence[str]
) -> dict[int, str]:
    """Map position -> first fault of a row, images aside."""
    faults: dict[int, str] = {}
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        reason = _fault(row, task, kit, required)
        if reason is None and name != task.name(row):
            reason = f"index {row['index']!r} occurs more than once"
        if reason is not None:
            faults[i] = reason
    return faults


def _image_faults(
    rows: list[dict[str, Any]], names: list[str], decoded: Mapping[str, list[str] | str], task: Task
) -> dict[int, str]:
    """Map position -> fault of a row's images."""
    damaged = images.damaged(text for found in decoded.values() if isinstance(found, list) for text in found)
    faults: dict[int, str] = {}
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        match decoded.get(name):
            case None:
                faults[i] = "no image (VLMEvalKit leaves such rows out)"
            case str() as reason:
                faults[i] = reason
            case shown:
                wrong = next((damaged[image] for image in shown if image in damaged), None)
                if wrong is None and task.images_named(row) > len(shown):
                    wrong = f"its text names image {task.images_named(row)}, but it has {len(shown)}"
                if wrong is not None:
                    faults[i] = wrong
    return faults


def _fault(row: Mapping[str, Any], task: Task, kit: Kit, required: Sequence[str]) -> str | None:
    for column in required:
        if not filled(row[column]):
            return f"field {column!r} is empty"
    if not _PLAIN_INDEX.fullmatch(row["index"]):
        return f"index {row['index']!r} is the name of a line, or has other characters than letters, digits and -._/"
    for column, allowed in task.allowed.items():
        if row[column] not in allowed:
            return f"{column} {row[column]!r} is not one that {task.kit_name} scores"
    for column in task.literals:
        if reason := literal_fault(column, row[column]):
            return reason
    return task.fault(row) or (gold_fault(kit, row, task.gold) if task.gold else None)


def _group(
    rows: list[dict[str, Any]], names: list[str], faults: dict[int, str], task: Task
) -> dict[int, tuple[int, ...]]:
    """Map position -> positions scored together. A group with one faulty row is faulty as a whole."""
    if task.grouping is None:
        return {i: (i,) for i in range(len(rows))}
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        try:
            groups[task.grouping.key(row)].append(i)
        except ValueError:  # a faulty row without a readable group
            groups[f"row {i}"].append(i)
    for members in groups.values():
        wrong = [i for i in members if i in faults]
        if wrong:
            reason: str | None = f"scored together with row {names[wrong[0]]}, which is faulty"
        else:
            reason = task.grouping.fault([rows[i] for i in members])
        if reason:
            for i in members:
                faults.setdefault(i, reason)
    return {i: tuple(members) for members in groups.values() for i in members}


def _typed(text: Any) -> Any:
    """Convert rows of an official file to the column types that pandas gives a file of exactly these rows.

    One empty cell in a faulty row would otherwise turn a column of whole numbers, and every option in the prompts, into
    decimals.
    """
    return pd.read_csv(io.StringIO(text.to_csv(sep="\t", index=False, quoting=1)), sep="\t")


def _lost(text: Any) -> dict[int, str]:
    """Map position -> the first cell with a text that pandas, and so VLMEvalKit, takes for missing."""
    lost = _typed(text).isna() & text.map(filled)
    return {
        i: f"VLMEvalKit reads {text.at[i, name]!r} in column {name!r} as an empty cell"
        for name in reversed(list(text))
        for i in lost.index[lost[name]]
    }


def _labelled(frame: Any, rows: Sequence[Row], groups: Sequence[tuple[int, ...]], task: Task) -> Any:
    """Return the rows with the cells that the kit tells rows apart by replaced."""
    head = task.grouping.head if task.grouping else lambda row: True
    heads = [next(member for member in group if head(rows[member])) for group in groups]
    labels = [task.labels(row, place, first) for place, (row, first) in enumerate(zip(rows, heads, strict=True))]
    return frame.assign(**pd.DataFrame(labels, index=frame.index))
