"""A table of results, written as CSV or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from uniprune.results.statistics import RankInterval
from uniprune.utils.tables import to_csv, to_markdown


@dataclass(frozen=True)
class ScoreCell:
    """A measured number with its uncertainty, ready to be shown.

    Attributes:
        value: the number.
        interval: its 95 % interval, or None.
        spread: standard deviation over seeds; None for a single run.
        form: format specification of the numbers in texts.
    """

    value: float
    interval: tuple[float, float] | None = None
    spread: float | None = None
    form: str = ".1f"

    def __str__(self) -> str:
        """Return `62.3 ± 0.4`, without the interval: most columns have no room for it."""
        return f"{self.value:{self.form}}" + (f" ± {self.spread:{self.form}}" if self.spread is not None else "")

    def wide(self) -> str:
        """Return `62.3 ± 0.4 [60.1, 64.4]`."""
        ends = [f"{end:{self.form}}" for end in self.interval or ()]
        return str(self) + f" [{', '.join(ends)}]" * bool(ends)

    def columns(self) -> dict[str, float | None]:
        """Map the suffix of a CSV column to its number."""
        low, high = self.interval or (None, None)
        return {"": self.value, " low": low, " high": high, " std": self.spread}


@dataclass(frozen=True)
class PartCell(ScoreCell):
    """A number that is measured on a part of a benchmark's rows.

    Attributes:
        rows: of the part.
        unanswered: of these, rows without an answer, which count as wrong.
    """

    rows: int = 0
    unanswered: int = 0

    def __str__(self) -> str:
        """Return `41.2 (120)`."""
        return f"{super().__str__()} ({self.rows})"

    def columns(self) -> dict[str, float | None]:
        """Map the suffix of a CSV column to its number."""
        return super().columns() | {" rows": self.rows, " unanswered": self.unanswered}


@dataclass(frozen=True)
class MarkedCell:
    """A number with marks that the notes explain."""

    value: float
    mark: str = ""

    def __str__(self) -> str:
        """Return `27.1 ~`."""
        return f"{self.value:.1f} {self.mark}".rstrip()

    def columns(self) -> dict[str, float | str]:
        """Map the suffix of a CSV column to its number or mark."""
        return {"": self.value, " mark": self.mark}


@dataclass(frozen=True)
class BudgetCell:
    """The group of runs that a run is ranked in.

    Attributes:
        number: of the group, from 1.
        low: fewest visual tokens per layer of its members.
        high: most such.
    """

    number: int
    low: float
    high: float

    def __str__(self) -> str:
        """Return `2: 31.0–31.5`."""
        ends = dict.fromkeys(f"{end:.1f}" for end in (self.low, self.high))
        return f"{self.number}: {'–'.join(ends)}"

    def columns(self) -> dict[str, float]:
        """Map the suffix of a CSV column to its number."""
        return {"": self.number, " low": self.low, " high": self.high}


@dataclass(frozen=True)
class RowsCell:
    """Rows that the scores of a run are about.

    Attributes:
        rows: rows scored.
        whole: rows of the same benchmarks without a limit; None if that is unknown.
        limited: whether a limit left out the others.
    """

    rows: int
    whole: int | None
    limited: bool

    def __str__(self) -> str:
        """Return `10 of 100` for a limited run, `100` for one of all rows."""
        whole = "an unknown number" if self.whole is None else str(self.whole)
        return f"{self.rows} of {whole}" if self.limited else str(self.rows)

    def columns(self) -> dict[str, int | None]:
        """Map the suffix of a CSV column to its number."""
        return {"": self.rows, " of": self.whole}


WideCell = ScoreCell | MarkedCell | RankInterval | BudgetCell | RowsCell
"""Cells that take several columns of a CSV file, the number itself in the first."""
CellValue = str | float | int | WideCell | None

GROUP = "budget group"
"""Column with the `BudgetCell` of a row; rows that differ in it are shown apart."""
ROOMY = ("average", "relative %")
"""Columns that show their interval."""
PRECISE = ("ratio", "net speed-up", "net ceiling", "TFLOPs", "KV MB")
"""Columns of small numbers, shown with three digits."""
FILES = ("remarks",)
"""Columns that terminals leave out: the notes have what matters of them."""


@dataclass(frozen=True)
class ResultTable:
    """A table of results, ready to be written.

    Attributes:
        columns: names in order; the benchmarks are between "settings" and "average".
        rows: column -> value.
        notes: remarks for the reader, one sentence each.
        benchmarks: the columns that are benchmarks.
        details: columns that terminals leave out.
    """

    columns: Sequence[str]
    rows: Sequence[dict[str, CellValue]]
    notes: Sequence[str] = field(default_factory=tuple)
    benchmarks: Sequence[str] = field(default_factory=tuple)
    details: Sequence[str] = field(default_factory=tuple)

    def texts(self) -> list[list[str]]:
        """Return the rows as readable text, numbers rounded."""
        return [[text(column, row.get(column)) for column in self.columns] for row in self.rows]

    def apart(self) -> set[int]:
        """Return the places of rows that begin another budget group, or model, than the row before them."""
        groups = [(row.get("model"), text(GROUP, row.get(GROUP))) for row in self.rows]
        return {i for i in range(1, len(groups)) if groups[i] != groups[i - 1] and GROUP in self.columns}

    def csv(self) -> str:
        """Return comma-separated values, numbers unrounded; a number with an interval takes several columns."""
        columns = [column + suffix for column in self.columns for suffix in self._suffixes(column)]
        return to_csv(columns, map(_flat, self.rows))

    def markdown(self) -> str:
        """Return a GitHub table."""
        return to_markdown(self.columns, self.texts()) + "".join(f"\n{note}\n" for note in self.notes)

    def _suffixes(self, column: str) -> list[str]:
        """Return the suffixes of the CSV columns that a column becomes."""
        cells = [row.get(column) for row in self.rows]
        return next((list(cell.columns()) for cell in cells if isinstance(cell, WideCell)), [""])


def _flat(row: Mapping[str, CellValue]) -> dict[str, str | float | None]:
    """Map CSV columns to plain values."""
    flat: dict[str, str | float | None] = {}
    for column, cell in row.items():
        if isinstance(cell, WideCell):
            flat |= {column + suffix: value for suffix, value in cell.columns().items()}
        else:
            flat[column] = cell
    return flat


def text(column: str, value: CellValue) -> str:
    """Return a value as shown to readers: small numbers with three digits, all others with one decimal."""
    if value is None:
        return "–"
    if isinstance(value, ScoreCell):
        return value.wide() if column in ROOMY else str(value)
    if isinstance(value, float):
        return f"{value:.3g}" if column in PRECISE else f"{value:.1f}"
    return str(value)
