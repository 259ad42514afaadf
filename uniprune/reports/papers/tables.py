"""Tables of papers as data: `<name>.yaml` holds a table's runs, `<name>.csv` the numbers it prints."""

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
    """One number of a table, and what of ours it is to be compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    row: str
    """The row's label, as printed."""
    model: str
    """Our name of the model."""
    method: str
    """Our name of the method; empty where we have none."""
    settings: str
    """Fields of the method as `--set` takes them, separated by blanks."""
    ratio: float
    """Keep ratio of our run."""
    benchmark: str
    """Our name of the benchmark; empty for a mean over the row."""
    column: str
    """The column's heading, as printed."""
    quantity: str
    """What the number is: "score", "average", "TTFT ms", …; see uniprune/reports/papers/measures.py."""
    value: str
    """The number as printed; empty where the source prints none or it cannot be read."""
    spread: str
    """The ± beside it, if any."""
    erratum: str
    """Why it cannot be right, or "suspect: " and why it is doubted; empty otherwise. The value stays as printed."""
    note: str
    """What else a reader must know."""

    @property
    def place(self) -> tuple[str, str, float]:
        """The row it stands in: label, model and ratio."""
        return self.row, self.model, self.ratio

    @property
    def number(self) -> float | None:
        """The printed number."""
        return float(self.value) if self.value else None

    def choice(self) -> MethodSpec:
        """Our method with its fields. Raises UserError for one we do not have."""
        return MethodSpec(self.method, self.ratio, settings=parse_settings(self.settings.split()))


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        name: what `--paper` calls it. path: its sweep file. sweep: its runs. lines: its printed numbers.
    """

    name: str
    path: Path
    sweep: SweepFile
    lines: tuple[Printed, ...]


def table_names(folder: Path = TABLES) -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in folder.glob("*.csv"))


def read_table(name: str, folder: Path = TABLES) -> PaperTable:
    """A table by name.

    Raises:
        UserError: there is none of that name, or its files are not in the expected form.
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
