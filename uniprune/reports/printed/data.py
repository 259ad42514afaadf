"""Printed numbers as data: `configs/printed/` holds the values, their sources, their tables, and our names for them.

Values stand as printed, never corrected. A doubted one says why in `suspect`; one that an earlier source prints in the
same row names that source in `copy_of`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from uniprune.errors import UserError
from uniprune.utils.paths import ROOT

FOLDER = ROOT / "configs" / "printed"
UNPRUNED = "vanilla"
"""Method of the rows of un-pruned models."""
AGGREGATES = ("average", "relative")
"""Benchmarks that are means over those of their row; each table has its own rule."""
NUMBER = re.compile(r"-?\d+(\.\d+)?")

Unit = Literal[
    "%",
    "% of vanilla",
    "mean score",
    "CIDEr",
    "points (perception)",
    "points (perception + cognition)",
    "points of 1000",
]
LARGEST: Mapping[str, float] = {
    "%": 100,
    "% of vanilla": 125,
    "mean score": 115,
    "CIDEr": 200,
    "points (perception)": 2000,
    "points (perception + cognition)": 2800,
    "points of 1000": 1000,
}
"""Unit -> largest value; a mean score counts MME / 20, hence more than 100."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Value(_Line):
    """One printed number."""

    table: str
    """Protocol: numbers of different ones have budgets that do not compare."""
    model: str
    budget: str
    """The budget as printed: visual tokens, or a share with its unit."""
    method: str
    benchmark: str
    split: Literal["", "all", "image", "test", "validation"]
    """Part of the benchmark where one name covers several; empty where there is one or the source does not tell."""
    value: str
    unit: Unit
    source: str
    place: str
    """Table of the source."""
    origin: Literal["own", "rerun", "copy", "unstated"]
    """The source's own method; a baseline that it ran itself; one that `copy_of` prints as well; unknown."""
    copy_of: str
    suspect: str
    """Reason for doubt; empty without."""
    remark: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not NUMBER.fullmatch(self.value):
            raise ValueError(f"value {self.value!r} is not a number")
        if not 0 <= self.number <= LARGEST[self.unit]:
            raise ValueError(f"value {self.value} is outside 0 to {LARGEST[self.unit]:g}, the range of {self.unit!r}")
        if (self.origin == "copy") is not bool(self.copy_of):
            raise ValueError(
                f"copy_of is {self.copy_of!r} with origin {self.origin!r}; copies, and only they, name one"
            )
        return self

    @property
    def number(self) -> float:
        """The number."""
        return float(self.value)

    @property
    def group(self) -> tuple[str, str, str, str, str, str]:
        """Key that numbers share if they can be set side by side: all but the method."""
        return self.table, self.model, self.budget, self.benchmark, self.split, self.unit

    @property
    def row(self) -> tuple[str, str, str, str, str, str]:
        """Key of its row in its table."""
        return self.source, self.place, self.table, self.model, self.budget, self.method


class _Described(_Line):
    """Something with a remark."""

    about: str
    """Printed methods and benchmarks that the remark concerns, separated by "; "; empty for all."""
    remark: str

    def concerns(self, value: Value) -> bool:
        """Return whether the remark concerns a number."""
        return not self.about or bool({value.method, value.benchmark} & {*self.about.split("; ")})


class Source(_Described):
    """A text that prints numbers."""

    source: str
    """Its arXiv number, or a name where it has none."""
    paper: str
    text: Literal["paper", "readme", "second-hand"]
    """The paper itself, its repository's page, or somebody else's quotation."""
    edition: str

    @property
    def label(self) -> str:
        """Paper and arXiv number."""
        return f"{self.paper} {self.source}" if self.source[:1].isdigit() else self.paper


class PrintedTable(_Described):
    """A table of a source, and how its means are made."""

    source: str
    place: str
    table: str
    model: str
    rows: Literal["all", "part"]
    """Rows of the benchmarks that scores are of; `remark` names a part."""
    budgets: Literal["tokens", "share", "TFLOPs", "other"]
    """Unit of budgets: visual tokens, a share of them in %, computation, or several things at once."""
    unpruned_tokens: Literal["", "576", "1024", "1296", "2880"]
    """Visual tokens of the un-pruned model, where budgets are tokens."""
    average: Literal["", "mean", "mean of ratios", "unknown"]
    relative: Literal["", "mean of ratios", "ratio of averages", "unknown"]
    over: str
    """Benchmarks of the means, separated by blanks; empty for all of the row."""
    mme_divisor: str
    """Divisor of MME in a mean of scores; empty without MME."""
    baseline: str
    """Budget of the un-pruned row that counts, where a table has several; exceptions follow as "; budget: baseline"."""

    def tokens(self, budget: str) -> float | None:
        """Return a budget in visual tokens; None where it is no such number."""
        return float(budget) if self.budgets == "tokens" else None

    def ratio(self, budget: str) -> float | None:
        """Return a budget as a share of the visual tokens; None where it is no such number."""
        if self.budgets == "tokens":
            return float(budget) / float(self.unpruned_tokens)
        share = budget.removesuffix(" %")
        return float(share) / 100 if self.budgets == "share" and NUMBER.fullmatch(share) else None

    def counts(self, budget: str, baseline: str) -> bool:
        """Return whether the un-pruned row at `baseline` is the one that rows at `budget` are set against."""
        usual, *exceptions = self.baseline.split("; ")
        return dict(one.split(": ", 1) for one in exceptions).get(budget, usual) in ("", baseline)


class Name(_Line):
    """A printed name and what it is here."""

    kind: Literal["method", "benchmark", "model"]
    printed: str
    like: str
    """Printed name under which it is found as well; empty for itself."""
    ours: str
    """Our names, separated by blanks; empty if we have none."""
    scale: str
    """Factor from our score to the printed unit; empty for one."""
    remark: str


Row = TypeVar("Row", bound=_Line)


@dataclass(frozen=True)
class Literature:
    """All printed numbers.

    Attributes:
        values: in the order of their sources.
        sources: source -> its description.
        tables: (source, place, table, model) -> its rules.
        names: (kind, printed name) -> its meaning.
    """

    values: tuple[Value, ...]
    sources: Mapping[str, Source]
    tables: Mapping[tuple[str, str, str, str], PrintedTable]
    names: Mapping[tuple[str, str], Name]

    @cached_property
    def rows(self) -> Mapping[tuple[str, ...], Mapping[str, Value]]:
        """Key of a row -> benchmark -> value."""
        rows: dict[tuple[str, ...], dict[str, Value]] = {}
        for value in self.values:
            rows.setdefault(value.row, {})[value.benchmark] = value
        return rows

    def budget(self, value: Value) -> str:
        """Return the budget of a number with its unit."""
        return value.budget + " tokens" * (self.tables[value.row[:4]].budgets == "tokens")

    @cached_property
    def _unpruned(self) -> Mapping[tuple[str, ...], list[Value]]:
        """Values of un-pruned models by source, place, table, model and benchmark."""
        found: dict[tuple[str, ...], list[Value]] = {}
        for value in self.values:
            if value.method == UNPRUNED:
                found.setdefault((*value.row[:4], value.benchmark), []).append(value)
        return found

    def unpruned(self, value: Value) -> Value | None:
        """Return the number of the un-pruned model in the same table, split and unit; None where it has none."""
        table = self.tables[value.row[:4]]
        for base in self._unpruned.get((*value.row[:4], value.benchmark), ()):
            if table.counts(value.budget, base.budget) and (base.split, base.unit) == (value.split, value.unit):
                return base
        return None


def read_literature(folder: Path = FOLDER) -> Literature:
    """Read and check the files of `configs/printed/`.

    Raises:
        UserError: a file is missing or has an unknown column or value, a number stands twice, or a source, table or
            name is not described.
    """
    values = tuple(_read(folder / "values.csv", Value))
    sources = {line.source: line for line in _read(folder / "sources.csv", Source)}
    tables = {
        (line.source, line.place, line.table, line.model): line for line in _read(folder / "tables.csv", PrintedTable)
    }
    names: dict[tuple[str, str], Name] = {}
    for name in _read(folder / "names.csv", Name):
        names[name.kind, name.printed] = name
    literature = Literature(values, sources, tables, names)
    for problem in _problems(literature):
        raise UserError(f"{folder}: {problem}")
    return literature


def _read(path: Path, kind: type[Row]) -> list[Row]:
    """Return the lines of a file."""
    lines = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            expected, columns = [*kind.model_fields], [*(reader.fieldnames or ())]
            if sorted(columns) != sorted(expected):
                raise UserError(f"{path} has the columns {columns}; expected {expected}")
            for line in reader:
                lines.append(kind.model_validate(line))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "line"
        raise UserError(f"{path} line {reader.line_num}: {at} is {first['input']!r}: {first['msg']}") from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return lines


def _problems(literature: Literature) -> list[str]:
    """Return what the files contradict each other in."""
    problems = []
    seen: set[tuple[str, ...]] = set()
    for value in literature.values:
        where = " ".join((*value.row, value.benchmark))
        if (*value.row, value.benchmark) in seen:
            problems.append(f"values.csv has {where} twice")
        seen.add((*value.row, value.benchmark))
        for kind, name in (("method", value.method), ("benchmark", value.benchmark), ("model", value.model)):
            if (kind, name) not in literature.names:
                problems.append(f"names.csv has no {kind} {name!r}, which values.csv has in {where}")
        if not {value.source, value.copy_of} - {""} <= literature.sources.keys():
            problems.append(f"sources.csv lacks {value.source!r} or {value.copy_of!r}, which values.csv has in {where}")
        if (value.source, value.place, value.table, value.model) not in literature.tables:
            problems.append(f"tables.csv has no {value.source} {value.place} {value.table} {value.model}")
    return problems
