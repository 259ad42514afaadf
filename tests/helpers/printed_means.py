"""Means over a row of a printed table, recomputed by the table's rule."""

from collections.abc import Iterator
from typing import NamedTuple

from uniprune.reports.printed.data import AGGREGATES, Literature, PrintedTable, Value


class Recomputed(NamedTuple):
    """A printed mean, what its row gives, and how far rounding of the row's numbers can move that."""

    printed: Value
    value: float
    margin: float

    @property
    def agrees(self) -> bool:
        return abs(self.value - self.printed.number) <= self.margin + half(self.printed) + 1e-9


def half(value: Value) -> float:
    """Largest distance of a rounded number from the true one."""
    return 0.5 * 10.0 ** -len(value.value.partition(".")[2])


def rule(literature: Literature, value: Value) -> str:
    table = literature.tables[value.row[:4]]
    return {"average": table.average, "relative": table.relative}[value.benchmark]


def recomputed(literature: Literature) -> Iterator[Recomputed]:
    """Every printed mean that follows from numbers of its table."""
    for row in literature.rows.values():
        for name in AGGREGATES:
            if name in row and (found := _recomputed(literature, row[name])) is not None:
                yield found


def _recomputed(literature: Literature, mean: Value) -> Recomputed | None:
    table, row = literature.tables[mean.row[:4]], literature.rows[mean.row]
    match rule(literature, mean):
        case "mean":
            parts = [
                (one.number / _divisor(table, one), half(one) / _divisor(table, one)) for one in _parts(table, row)
            ]
        case "mean of ratios":
            parts = [ratio for one in _parts(table, row) if (ratio := _ratio(literature, one)) is not None]
        case "ratio of averages" if "average" in row:
            parts = [ratio for ratio in [_ratio(literature, row["average"])] if ratio is not None]
        case _:
            return None
    if not parts:
        return None
    return Recomputed(mean, *(sum(numbers) / len(parts) for numbers in zip(*parts, strict=True)))


def _parts(table: PrintedTable, row: dict[str, Value]) -> list[Value]:
    over = table.over.split() or [name for name in row if name not in AGGREGATES]
    return [row[name] for name in over if name in row]


def _divisor(table: PrintedTable, one: Value) -> float:
    if one.benchmark in ("MME", "MME-P"):
        return float(table.mme_divisor or 1)
    return 10 if one.unit == "points of 1000" else 1


def _ratio(literature: Literature, one: Value) -> tuple[float, float] | None:
    base = literature.unpruned(one)
    if base is None:
        return None
    ratio = 100 * one.number / base.number
    return ratio, (100 * half(one) + ratio * half(base)) / base.number
