"""Differences that a planned sweep can show, printed beside its cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import comb

from uniprune.evaluation.plan import PlannedRun
from uniprune.reports.findings import PowerAnalysis, Study
from uniprune.results.records import RunRecord


def planned_power(items: Sequence[PlannedRun], records: Sequence[RunRecord]) -> list[str]:
    """Return one line per model, benchmark and number of rows on which several methods are planned.

    Pairs are those of the methods of one ratio and protocol; seeds of a method are one.

    Args:
        items: the planned runs.
        records: stored runs, whose pairs of methods give the spread.
    """
    methods: dict[tuple[str, str, int | None, str | None], dict[object, set[object]]] = defaultdict(dict)
    for item in items:
        choice = item.cell.choice
        field = choice.ratio, item.cell.protocol, item.cell.question
        method = choice.name, choice.layer, tuple(sorted(choice.settings.items()))
        for name, rows in item.rows.items():
            if choice.name != "none":
                place = item.cell.model, name, rows, item.setup.weights if item.setup else None
                methods[place].setdefault(field, set()).add(method)
    several = {place: max(map(len, fields.values())) for place, fields in methods.items()}
    analysis, lines = PowerAnalysis(Study(records) if records else None), []
    for (model, name, rows, weights), count in several.items():
        if count < 2:
            continue
        shown = "unknown rows" if rows is None else str(analysis.on(name, rows, comb(count, 2), weights))
        lines.append(f"  {model}, {name}: {shown}")
    return ["What it can show between methods at one ratio, in 80 % of cases at 5 %:", *lines] if lines else []
