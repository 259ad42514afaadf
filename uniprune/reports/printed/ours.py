"""Our own measured numbers for what papers print: same model, benchmark and method, and an equal measured budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from uniprune.reports.printed.data import Literature
from uniprune.reports.printed.query import Group
from uniprune.results.budgets import agree, visual_tokens
from uniprune.results.comparison import RunComparison, SeedGroup
from uniprune.results.records import RunRecord
from uniprune.results.table import ScoreCell

SHARE = 0.02
"""Measured shares agree with a printed one within this part of it, as budgets in tokens do."""
SCALES = {"%": 1.0, "points of 1000": 10.0}
"""Unit -> printed score for one point of ours, which is in percent; of other units the benchmark's name has it."""


@dataclass(frozen=True)
class Measured:
    """A number of ours in the printed unit.

    Attributes:
        cell: score with its 95 % interval.
        benchmark: our benchmark.
        group: the runs.
        rows: rows of a run that are scored.
        tokens: measured visual tokens, mean over layers and rows; None without images.
        note: remarks on our names for the printed ones.
    """

    cell: ScoreCell
    benchmark: str
    group: SeedGroup
    rows: int
    tokens: float | None
    note: str

    @property
    def label(self) -> str:
        """Method, benchmark, measured tokens, rows, and the settings that runs of one method differ in."""
        setup = self.group.setup
        passed = [f"{name}={value}" for name, value in setup.method.passed.items()]
        settings = [f"prompts={setup.prompts}", f"images={setup.images}", f"protocol={setup.protocol}", setup.dtype]
        tokens = "no visual tokens" if self.tokens is None else f"{self.tokens:.1f} visual tokens"
        return ", ".join(
            [f"{setup.method.name} on {self.benchmark}", tokens, f"{self.rows:,} rows", " ".join([*passed, *settings])]
        )


class OurRuns:
    """Stored runs, found by what papers print.

    Args:
        records: all stored runs.
        literature: the names.
    """

    def __init__(self, records: Iterable[RunRecord], literature: Literature) -> None:
        self._names = literature.names
        self._tables = literature.tables
        self._comparison = RunComparison(list(records))

    def find(self, group: Group) -> list[Measured]:
        """Return our numbers for a group, one per set-up and benchmark: default settings and most rows first.

        Means over benchmarks and scores of a part of the rows have none.
        """
        value = group.values[0]
        if self._tables[value.row[:4]].rows == "part":
            return []
        methods = {name for one in group.values for name in self._names["method", one.method].ours.split()}
        models = self._names["model", value.model].ours.split()
        meaning = self._names["benchmark", value.benchmark]
        scale = SCALES.get(value.unit) or float(meaning.scale or 1)
        notes = "; ".join(filter(None, (meaning.remark, self._names["model", value.model].remark)))
        found = []
        for runs in self._comparison.groups:
            if runs.setup.method.name not in methods or not {run.model.name for run in runs.runs} & {*models}:
                continue
            for name in meaning.ours.split():
                if name in runs.scores and self._has_budget(runs, name, group):
                    cell = _scaled(self._comparison, runs, name, scale)
                    score = runs.scores[name].score
                    rows = score.rows if score else 0
                    found.append(Measured(cell, name, runs, rows, visual_tokens(runs, [name]), notes))
        return sorted(found, key=lambda one: (bool(one.group.setup.method.passed), -one.rows))

    def _has_budget(self, runs: SeedGroup, name: str, group: Group) -> bool:
        """Return whether measured visual tokens agree with the printed budget; un-pruned runs have all of them."""
        if runs.setup.method.kind == "none":
            return True
        value = group.values[0]
        table, measured = self._tables[value.row[:4]], visual_tokens(runs, [name])
        tokens, ratio = table.tokens(value.budget), table.ratio(value.budget)
        if tokens is not None:
            return agree(measured, tokens)
        ledgers = [run.datasets[name].ledger for run in runs.runs]
        before = [ledger.initial for ledger in ledgers if ledger and ledger.initial]
        if ratio is None or measured is None or not before:
            return False
        return abs(measured / fmean(before) - ratio) <= SHARE * ratio


def _scaled(comparison: RunComparison, runs: SeedGroup, name: str, scale: float) -> ScoreCell:
    """Return a score and its interval in the printed unit."""
    estimate, spread = comparison.score(runs, name), runs.spread([name])
    low, high = estimate.interval() or (None, None)
    interval = None if low is None or high is None else (scale * low, scale * high)
    return ScoreCell(scale * estimate.value, interval, None if spread is None else scale * spread)
