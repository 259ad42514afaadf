"""Tables of papers as data: `<name>.yaml` holds the runs of a table.

Its printed numbers are in `<name>.csv`, or its block `printed` names them in configs/printed/.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from uniprune.errors import UserError, unknown
from uniprune.evaluation.config import SweepFile, read_sweep
from uniprune.reports.papers.line import Printed
from uniprune.reports.papers.literature import printed_lines
from uniprune.utils.paths import ROOT

TABLES = ROOT / "configs" / "papers"


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        name: its name for `--paper`.
        path: its sweep file.
        sweep: its runs.
        lines: its printed numbers.
    """

    name: str
    path: Path
    sweep: SweepFile
    lines: tuple[Printed, ...]


def table_names(folder: Path = TABLES) -> list[str]:
    """Return the names of all tables."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_table(name: str, folder: Path = TABLES) -> PaperTable:
    """Read a table by its name.

    Raises:
        UserError: there is no such table, its files have another form, or it has no printed numbers.
    """
    if name not in table_names(folder):
        raise unknown("paper table", name, table_names(folder))
    path = folder / f"{name}.yaml"
    sweep = read_sweep(path)
    transcribed = folder / f"{name}.csv"
    if transcribed.exists() == (sweep.printed is not None):
        raise UserError(f"{path}: the printed numbers are in {transcribed.name} or named by `printed`, one of the two")
    lines = printed_lines(sweep.printed, path) if sweep.printed else _transcribed(transcribed)
    return PaperTable(name, path, sweep, lines)


def _transcribed(path: Path) -> tuple[Printed, ...]:
    """Read a table's own file of printed numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return tuple(Printed.model_validate(line) for line in csv.DictReader(file, strict=True))
        except (ValidationError, csv.Error) as error:
            raise UserError(f"{path} is not a table of printed numbers: {error}") from error
