"""Tables whose numbers are in `configs/printed/`: a block of the sweep file names the table and what of ours is in it.

printed:
  source: "0000.00000"           # a table of configs/printed/tables.csv
  place: Table 1
  table: protocol
  printed_model: model-a
  model: model-a-7b              # ours
  ratios: {"576": 1, "192": 0.33333}       # budget as printed -> keep ratio
  methods:                       # row -> our method; null if we have none
    vanilla: none
    Method-A: {method: method-a, settings: layer=2, protocol: average, only: ["192"]}
    Method-B: null
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from uniprune.errors import UserError
from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.line import Printed
from uniprune.reports.printed.data import AGGREGATES, UNPRUNED, Literature, PrintedTable, Value, read_literature

UNITS = {"%": 1.0, "mean score": 1.0, "% of vanilla": 1.0, "points of 1000": 10.0}
"""Unit -> printed score for one point of our headline; other units have the scale of their benchmark, or none."""
Ratio = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    """A model that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Ours(_Strict):
    """Our method for a printed row."""

    method: str
    """Registered name."""
    settings: str = ""
    """Fields as `--set` takes them, separated by blanks; the pruning layer is `layer`."""
    protocol: Literal["site", "average"] = "site"
    """Reach of the ratio: at the pruning point, or over all layers."""
    ratios: dict[str, Ratio] = Field(default={})
    """Budget as printed -> keep ratio, where it differs from the table's."""
    only: tuple[str, ...] = ()
    """Budgets for which our method has the setting; empty for all. Rows of the others are shown without ours."""
    note: str = ""
    """Remark for the reader."""


class PartRows(_Strict):
    """Rows that a resized image answers wrong (hard), or right."""

    rows: Literal["hard", "easy", "hard known", "easy known"]
    """The part; "known" ones are right with the whole image, too."""
    by: str
    """Method of ours that resizes, with its fields, at the ratio of the row: `NAME FIELD=VALUE`."""


def _named(value: Any) -> Any:
    """Return a bare method name in its long form."""
    return {"method": value} if isinstance(value, str) else value


class TableSource(_Strict):
    """The printed numbers of a table, and what of ours each is compared with."""

    source: str
    """Source, as in configs/printed/sources.csv."""
    place: str
    """Its table, as in configs/printed/tables.csv; so are the next two."""
    table: str
    """Protocol."""
    printed_model: str
    """Model."""
    model: str
    """Our name of the model."""
    ratios: dict[str, Ratio]
    """Budget as printed -> keep ratio."""
    methods: dict[str, Annotated[Ours, BeforeValidator(_named)] | None]
    """Row -> our method; null if we have none."""
    columns: dict[str, str | None] = Field(default={})
    """Column -> our benchmark, where it is not the one of configs/printed/names.csv; null for none."""
    part: PartRows | None = None
    """Rows that all numbers of the table are about; none for all rows."""
    gaps: bool = False
    """True if cells of the text are illegible: means of rows with fewer columns than the un-pruned one are not ours."""


@cache
def literature() -> Literature:
    """Read the numbers that papers print, once per process."""
    return read_literature()


def printed_lines(block: dict[str, Any], path: Path) -> tuple[Printed, ...]:
    """Return the printed numbers of a table, in the order of the file.

    Args:
        block: the block `printed` of the sweep file.
        path: the sweep file, for messages.

    Raises:
        UserError: the block has another form, names no table, or lacks a budget or a row that the table prints.
    """
    try:
        source = TableSource.model_validate(block)
    except ValueError as error:
        raise UserError(f"{path}: `printed` has another form: {error}") from error
    key = (source.source, source.place, source.table, source.printed_model)
    found = [value for value in literature().values if value.row[:4] == key]
    if not found:
        raise UserError(f"{path}: configs/printed/values.csv has no table {', '.join(key)}; tables.csv lists them")
    for name, printed, known in (
        ("methods", {value.method for value in found}, source.methods),
        ("ratios", {value.budget for value in found}, source.ratios),
    ):
        if printed != known.keys():
            raise UserError(
                f"{path}: `{name}` names {', '.join(sorted(known.keys() - printed)) or 'nothing'} that the table does "
                f"not print, and lacks {', '.join(sorted(printed - known.keys())) or 'nothing'}; name exactly its own"
            )
    full = {value.benchmark for value in found if value.method == UNPRUNED}
    whole = {row for row in (value.row for value in found) if full <= literature().rows[row].keys()}
    return tuple(
        _line(source, value, literature().tables[key], not source.gaps or value.row in whole) for value in found
    )


def our_benchmark(source: TableSource, value: Value) -> str:
    """Return our benchmark of a printed column; empty if none is registered."""
    if value.benchmark in source.columns:
        return source.columns[value.benchmark] or ""
    names = literature().names["benchmark", value.benchmark].ours.split()
    return next((name for name in names if name in BENCHMARKS.names()), "")


def scale(value: Value) -> float | None:
    """Return the printed score for one point of our headline score; None where ours cannot be converted."""
    own = literature().names["benchmark", value.benchmark].scale
    return float(own) if own else UNITS.get(value.unit)


def _line(source: TableSource, value: Value, table: PrintedTable, whole: bool) -> Printed:
    """Return a printed number with the key of ours."""
    ours = source.methods[value.method]
    if ours and ours.only and value.budget not in ours.only:
        ours = None
    mean = value.benchmark in AGGREGATES
    benchmark, factor = ("", 1.0) if mean else (our_benchmark(source, value), 1.0 if source.part else scale(value))
    compared = ours is not None and (
        whole and _computable(value, table) if mean else bool(benchmark) and factor is not None
    )
    layers = "our ratio is the average over all layers" if ours and ours.protocol == "average" else ""
    notes = (
        table.remark,
        value.remark,
        f"copied from {value.copy_of}" * bool(value.copy_of),
        ours.note if ours else "",
        layers,
    )
    return Printed(
        row=f"{value.method} at {value.budget}",
        model=source.model,
        method=ours.method if ours and compared else "",
        settings=ours.settings if ours else "",
        ratio=(ours.ratios if ours else {}).get(value.budget, source.ratios[value.budget]),
        benchmark=benchmark,
        column=value.benchmark,
        quantity=_quantity(value, table),
        value=value.value,
        spread="",
        erratum=f"suspect: {value.suspect}" if value.suspect else "",
        note="; ".join(note for note in notes if note),
        protocol=ours.protocol if ours else "site",
        scale=factor or 1.0,
        part=source.part.rows if source.part else "",
        parted_by=source.part.by if source.part else "",
        averaged=value.benchmark in table.over.split() if table.over else True,
    )


def _quantity(value: Value, table: PrintedTable) -> str:
    """Return the quantity of a printed number."""
    if value.benchmark not in AGGREGATES:
        return "score"
    return "average relative %" if value.unit == "% of vanilla" else "average"


def _computable(value: Value, table: PrintedTable) -> bool:
    """Check whether a mean over a row is one that we make: of scores, or of ratios to the un-pruned model."""
    rule = table.average if value.benchmark == "average" else table.relative
    return rule == ("mean of ratios" if value.unit == "% of vanilla" else "mean")
