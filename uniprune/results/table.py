"""A table of results ready to be written: CSV, Markdown and a page of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader

from uniprune.results.statistics import RankInterval

PAGES = Path(__file__).parent / "pages"


@dataclass(frozen=True)
class ScoreCell:
    """A number with its uncertainty.

    Attributes:
        value: the number. interval: 95 %, or None. spread: standard deviation over seeds, None of one run.
        form: how numbers are written.
    """

    value: float
    interval: tuple[float, float] | None = None
    spread: float | None = None
    form: str = ".1f"

    def __str__(self) -> str:
        """`62.3 ± 0.4`; the interval is left to columns that have room for it."""
        return f"{self.value:{self.form}}" + (f" ± {self.spread:{self.form}}" if self.spread is not None else "")

    def wide(self) -> str:
        """`62.3 ± 0.4 [60.1, 64.4]`."""
        ends = [f"{end:{self.form}}" for end in self.interval or ()]
        return str(self) + f" [{', '.join(ends)}]" * bool(ends)

    def columns(self) -> dict[str, float | None]:
        """Ending of a column's name -> number."""
        low, high = self.interval or (None, None)
        return {"": self.value, " low": low, " high": high, " std": self.spread}


@dataclass(frozen=True)
class MarkedCell:
    """A number with signs that the notes explain."""

    value: float
    mark: str = ""

    def __str__(self) -> str:
        """`27.1 ~`."""
        return f"{self.value:.1f} {self.mark}".rstrip()

    def columns(self) -> dict[str, float | str]:
        """Ending of a column's name -> number or sign."""
        return {"": self.value, " mark": self.mark}


Wide = ScoreCell | MarkedCell | RankInterval
"""What takes several columns of a CSV file, the number itself in the first."""
CellValue = str | float | int | Wide | None

ROOMY = ("average", "relative %")
"""Columns that show their interval."""
PRECISE = ("ratio", "TFLOPs", "KV MB")
"""Columns of small numbers, shown with three digits."""
DETAILS = ("layer", "settings", "rows", "judge", "identity")
"""Columns that the page hides until asked."""


@dataclass(frozen=True)
class Leaderboard:
    """A table ready to be written.

    Attributes:
        columns: names in order; the benchmarks lie between "settings" and "average".
        rows: column -> value. notes: what a reader must know, one sentence each.
        benchmarks: the columns that are benchmarks.
    """

    columns: Sequence[str]
    rows: Sequence[dict[str, CellValue]]
    notes: Sequence[str] = field(default_factory=tuple)
    benchmarks: Sequence[str] = field(default_factory=tuple)

    def texts(self) -> list[list[str]]:
        """The rows as readable text, numbers rounded."""
        return [[text(column, row.get(column)) for column in self.columns] for row in self.rows]

    def csv(self) -> str:
        """Comma-separated values, numbers unrounded; what has an interval takes several columns."""
        lines = [self._plain(row) for row in self.rows]
        columns = [name for column in self.columns for name in self._spread(column)]
        file = io.StringIO()
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return file.getvalue()

    def markdown(self) -> str:
        """A GitHub table."""
        lines = [self.columns, ["---"] * len(self.columns), *self.texts()]
        table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
        return table + "".join(f"\n{note}\n" for note in self.notes)

    def html(self) -> str:
        """A page of its own: no other file, no network."""
        environment = Environment(loader=FileSystemLoader(PAGES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
        ranks = [row.get("rank") for row in self.rows]
        columns = [name for name in self.columns if name not in self.benchmarks] + list(self.benchmarks)
        return environment.get_template("leaderboard.html").render(
            board=self,
            columns=columns,
            rows=[[PageCell.of(name, row.get(name)) for name in columns] for row in self.rows],
            tied={i for i, rank in enumerate(ranks) if isinstance(rank, RankInterval) and rank.tied},
            details=DETAILS,
        )

    def _spread(self, column: str) -> list[str]:
        """Names of the CSV columns that a column becomes."""
        cells = [row.get(column) for row in self.rows]
        endings = next((list(cell.columns()) for cell in cells if isinstance(cell, Wide)), [""])
        return [column + ending for ending in endings]

    def _plain(self, row: dict[str, CellValue]) -> dict[str, str | float | int | None]:
        plain: dict[str, str | float | int | None] = {}
        for column, cell in row.items():
            if isinstance(cell, Wide):
                plain |= {column + ending: value for ending, value in cell.columns().items()}
            else:
                plain[column] = cell
        return plain


def text(column: str, value: CellValue) -> str:
    """A value as a reader wants it: small numbers with three digits, everything else with one decimal."""
    if value is None:
        return "–"
    if isinstance(value, ScoreCell):
        return value.wide() if column in ROOMY else str(value)
    if isinstance(value, float):
        return f"{value:.3g}" if column in PRECISE else f"{value:.1f}"
    return str(value)


class PageCell(NamedTuple):
    """A cell of the page: its text, the number it is sorted and drawn by, what it says when pointed at."""

    text: str
    number: float | None
    interval: tuple[float, float] | None
    hint: str

    @classmethod
    def of(cls, column: str, value: CellValue) -> PageCell:
        """The cell of a value."""
        if isinstance(value, ScoreCell):
            return cls(text(column, value), value.value, value.interval, value.wide())
        plain = value.columns()[""] if isinstance(value, Wide) else value
        return cls(text(column, value), plain if isinstance(plain, float | int) else None, None, "")
