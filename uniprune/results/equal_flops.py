"""Accuracy at equal FLOPs: methods read off at one cost, between the budgets at which they were measured.

A method at several ratios is a curve of average score over operations of the prefill. At a cost that it was not run at,
the score is that on the straight line between its two neighbouring measurements. Nothing is read off beyond the
cheapest and the dearest one: such methods are named instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from uniprune.results.budgets import SHARE, decisions, distinct, measured, windows
from uniprune.results.comparison import RunComparison, SeedGroup
from uniprune.results.settings import shared_settings
from uniprune.results.statistics import Estimate
from uniprune.results.statistics.estimate import combined
from uniprune.results.table import CellValue, ResultTable, ScoreCell

COLUMNS = ("model", "TFLOPs", "method", "average", "from", "settings")
TERA = 1e12
INTRODUCTION = (
    "average at equal TFLOPs of vision tower, projector and prefill (a method's own work is timed, not counted): "
    f"measured within {100 * SHARE:g} %, or on the straight line between two measured ratios of the method, never "
    "beyond them. Intervals are those of the questions and seeds, without the error of the line; ranks are those of "
    "equal visual tokens, on the leaderboard."
)


@dataclass(frozen=True)
class Point:
    """A measurement of a method.

    Attributes:
        flops: operations of a prompt's prefill with tower and projector, the mean over rows with images.
        score: average over benchmarks.
        name: ratio, and protocol if not the usual one.
    """

    flops: float
    score: Estimate
    name: str

    def __str__(self) -> str:
        """Return `ratio 0.111 (3.41)`."""
        return f"{self.name} ({self.flops / TERA:.3g})"


@dataclass(frozen=True)
class Reading:
    """The score of a method at a cost.

    Attributes:
        score: measured, or on the line between two measurements.
        source: the measurements in words.
    """

    score: Estimate
    source: str


def read_off(curve: Sequence[Point], flops: float) -> Reading | None:
    """Return the score of a method at a cost; None beyond its measurements.

    Args:
        curve: its measurements.
        flops: the cost; a measurement that agrees with it within 2 % counts as made there.
    """
    nearest = min(curve, key=lambda point: (abs(point.flops - flops), point.flops, point.name))
    if max(nearest.flops, flops) <= _most(min(nearest.flops, flops)):
        return Reading(nearest.score, str(nearest))
    below = max((p for p in curve if p.flops < flops), key=lambda p: (p.flops, p.name), default=None)
    above = min((p for p in curve if p.flops > flops), key=lambda p: (p.flops, p.name), default=None)
    if below is None or above is None:
        return None
    share = (flops - below.flops) / (above.flops - below.flops)
    score = combined(lambda x: (1 - share) * x[0] + share * x[1], [below.score, above.score], above.score.scale)
    return Reading(score, f"between {below} and {above}")


def group_flops(group: SeedGroup) -> float | None:
    """Return the operations of a prompt's prefill: the mean over rows with images; None unless all were counted."""
    names = measured(group)
    entries = [run.datasets[name] for run in group.runs for name in names]
    counted = [(one.ledger.flops.total, one.answered) for one in entries if one.ledger and one.ledger.flops]
    rows = sum(answered for _, answered in counted)
    if not rows or len(counted) < len(entries):
        return None
    return sum(flops * answered for flops, answered in counted) / rows


def equal_flops(groups: Iterable[SeedGroup], comparison: RunComparison) -> ResultTable:
    """Return the table of average scores at equal operations, with what could not be read off in its notes.

    Compared are pruned runs of one model and settings on the same questions. Costs are those that were measured, where
    two methods or more can be read off.

    Args:
        groups: of any models; those that lack a benchmark of another one are compared among their like.
        comparison: has their estimates.
    """
    fields: dict[object, list[SeedGroup]] = defaultdict(list)
    for group in groups:
        if group.scores and group.setup.method.kind != "none":
            fields[group.settings, group.questions, measured(group)].append(group)
    rows: list[dict[str, CellValue]] = []
    notes = []
    for field in fields.values():
        curves, uncounted = _curves(distinct(field), comparison)
        model, where = field[0].runs[0].model.name, shared_settings(field[0])
        levels = _levels(curves)
        missing: dict[str, list[str]] = defaultdict(list)
        for flops in levels:
            found = {name: read_off(curve, flops) for name, curve in curves.items()}
            for name, reading in found.items():
                if reading is None:
                    missing[name].append(f"{flops / TERA:.3g}")
            rows += [
                {
                    "model": model, "TFLOPs": flops / TERA, "method": name, "from": reading.source,
                    "average": ScoreCell(reading.score.value, reading.score.interval()), "settings": where,
                }
                for name, reading in sorted(found.items(), key=lambda pair: pair[0])
                if reading is not None
            ]  # fmt: skip
        if not levels and len(curves) > 1:
            notes.append(f"{model}: no two methods have a cost in common ({'; '.join(map(_range, curves.items()))}).")
        notes += [
            f"{model}: {_range((name, curves[name]))} is not read off at {', '.join(costs)}: never beyond what was run."
            for name, costs in missing.items()
        ]
        notes += [f"{model}: no operations were counted of {', '.join(uncounted)}."] * bool(uncounted)
    rows.sort(key=lambda row: (str(row["model"]), str(row["settings"]), -_number(row["TFLOPs"]), str(row["method"])))
    return ResultTable(COLUMNS, rows, tuple(dict.fromkeys([INTRODUCTION] * bool(rows) + notes)))


def _curves(field: Iterable[SeedGroup], comparison: RunComparison) -> tuple[dict[str, list[Point]], list[str]]:
    """Return the measurements of every method with its fields, and the names of those without operations."""
    curves: dict[str, list[Point]] = defaultdict(list)
    uncounted: dict[str, None] = {}
    codes: dict[str, set[str]] = defaultdict(set)
    for group in field:
        codes[group.setup.method.spelled_out].add(group.setup.method.code)
    for group in sorted(field, key=lambda group: (group.setup.method.spelled_out, decisions(group))):
        setup, flops = group.setup, group_flops(group)
        method = setup.method.spelled_out
        if len(codes[method]) > 1:  # other decisions under one name are another method
            method += f" (code {setup.method.code})"
        if flops is None:
            uncounted[method] = None
        else:
            name = f"ratio {setup.ratio:g}" + " average" * (setup.protocol == "average")
            curves[method].append(Point(flops, comparison.average(group, group.scores), name))
    return dict(curves), list(uncounted)


def _levels(curves: Mapping[str, Sequence[Point]]) -> list[float]:
    """Return the measured costs, those within 2 % as their mean, at which two curves or more can be read off."""
    costs = sorted({point.flops for curve in curves.values() for point in curve})
    means = [sum(costs[i] for i in part) / len(part) for part in windows(costs, _most)]
    return [cost for cost in sorted(means) if sum(read_off(curve, cost) is not None for curve in curves.values()) > 1]


def _most(flops: float) -> float:
    """Return the largest cost that agrees with one."""
    return flops / (1 - SHARE)


def _range(pair: tuple[str, Sequence[Point]]) -> str:
    """Return `fastv (6.1 to 9.4 TFLOPs)`."""
    name, curve = pair
    ends = dict.fromkeys(f"{end(point.flops for point in curve) / TERA:.3g}" for end in (min, max))
    return f"{name} ({' to '.join(ends)} TFLOPs)"


def _number(value: CellValue) -> float:
    """Return a number to sort by."""
    return float(value) if isinstance(value, float | int) else 0.0
