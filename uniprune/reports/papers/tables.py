"""Tables of papers as data: `<name>.yaml` holds the runs of a table, `<name>.csv` its printed numbers."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from uniprune.errors import UserError, unknown
from uniprune.evaluation.config import SweepFile, read_sweep
from uniprune.evaluation.method_spec import MethodSpec, parse_settings
from uniprune.utils.paths import ROOT

TABLES = ROOT / "configs" / "papers"


class Printed(BaseModel):
    """One number of a table, and the key of our number."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    row: str
    """The row's label, as printed."""
    model: str
    """Our name of the model."""
    method: str
    """Our name of the method; empty if we have none."""
    settings: str
    """Fields of the method as `--set` takes them, separated by blanks."""
    ratio: float
    """Keep ratio of our run."""
    benchmark: str
    """Our name of the benchmark; empty for a mean over the row."""
    column: str
    """The column's heading, as printed."""
    quantity: str
    """Quantity: "score", "average", "TTFT ms", …; see uniprune/reports/papers/measures.py."""
    value: str
    """The number as printed; empty if the source prints none or it is illegible."""
    spread: str
    """The number after its ±, if any."""
    erratum: str
    """Reason why it cannot be right, or "suspect: " and a reason for doubt; else empty. The value stays as printed."""
    note: str
    """Remark for the reader."""

    @property
    def place(self) -> tuple[str, str, float]:
        """Key of its row: label, model and ratio."""
        return self.row, self.model, self.ratio

    @property
    def number(self) -> float | None:
        """The printed number."""
        return float(self.value) if self.value else None

    def choice(self) -> MethodSpec:
        """Return our method with its fields.

        Raises:
            UserError: there is no such method or field.
        """
        return MethodSpec(self.method, self.ratio, settings=parse_settings(self.settings.split())).normalised()


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
    return sorted(path.stem for path in folder.glob("*.csv"))


def read_table(name: str, folder: Path = TABLES) -> PaperTable:
    """Read a table by its name.

    Raises:
        UserError: there is no such table, or its files have another form.
    """
    if name not in table_names(folder):
        raise unknown("paper table", name, table_names(folder))
    path = folder / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        try:
            lines = tuple(Printed.model_validate(line) for line in csv.DictReader(file, strict=True))
        except (ValidationError, csv.Error) as error:
            raise UserError(f"{path} is not a table of printed numbers: {error}") from error
    return PaperTable(name, folder / f"{name}.yaml", read_sweep(folder / f"{name}.yaml"), lines)
