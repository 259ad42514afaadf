"""The stored runs that a paper's numbers are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.method_spec import MethodSpec, plain
from uniprune.modeling.catalog import catalog
from uniprune.pruning.base import Compose
from uniprune.results.comparison import RunComparison, SeedGroup, same_machine, same_rows
from uniprune.results.hard_accuracy import HardRows
from uniprune.results.records import DatasetRecord, RunRecord

RATIO_TOLERANCE = 1e-4
"""Ratios that differ less are equal: papers round them."""
BUDGET = {"ratio", "seed"}
"""Fields of a method's parts that follow from the run's own ratio and seed."""


class Source(NamedTuple):
    """The runs behind one of our numbers: those of one set-up that differ in their seed, and the benchmark."""

    group: SeedGroup
    benchmark: str

    @property
    def entries(self) -> list[DatasetRecord]:
        """The benchmark's entries, ordered by seed."""
        return [run.datasets[self.benchmark] for run in self.group.runs]


class StoredRuns:
    """Stored runs, found by model, method and benchmark.

    Args:
        records: all stored runs.

    Attributes:
        records: the same.
        comparison: the estimates that the leaderboard of these runs shows.
        hard: scores on rows that a resized image answers wrong, or right.
    """

    def __init__(self, records: Iterable[RunRecord]) -> None:
        self.records = list(records)
        self.comparison = RunComparison(self.records)
        self.hard = HardRows(self.comparison)
        self._catalog = catalog()
        self._usual: dict[str, list[RunRecord]] = {}
        self._groups = self.comparison.groups

    def find(self, model: str, choice: MethodSpec, benchmark: str, protocol: str = "site") -> Source | None:
        """Return the runs of a method under a protocol on a benchmark, one per seed; None without any.

        Of several set-ups (row limits, precisions, devices) the one with the most rows scored is taken, of these one
        with the prompts and images of the paper's harness, and then the one with the most seeds.
        """
        groups = (_on(group, benchmark) for group in self._groups if is_of(group, model, choice, protocol))
        found = [Source(group, benchmark) for group in groups if group is not None]
        return max(found, key=lambda one: self._preference(one, model), default=None)

    def unlike_paper(self, group: SeedGroup, model: str) -> str:
        """Return the policies in which runs differ from the catalogue's defaults of the model, those of papers."""
        entry = self._catalog.get(model)
        pairs = {name: (getattr(group.setup, name), getattr(entry, name)) for name in ("prompts", "images") if entry}
        other = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return "; ".join(
            f"ours has {name}={ours}, the paper's harness {theirs}" for name, (ours, theirs) in other.items()
        )

    def _preference(self, source: Source, model: str) -> tuple[int, bool, int]:
        """Return the rows scored in a run, whether it has the paper's prompts and images, and the number of runs."""
        rows = max(entry.score.rows if entry.score else 0 for entry in source.entries)
        return rows, not self.unlike_paper(source.group, model), len(source.entries)

    def baseline(self, source: Source) -> Source | None:
        """Return the un-pruned runs of the same settings and rows; None without any."""
        group = self.comparison.baseline(source.group)
        group = group and _on(group, source.benchmark)
        if group is None:
            return None
        baseline = Source(group, source.benchmark)
        return baseline if same_rows(source.entries[0], baseline.entries[0]) else None

    def evaluated(self, spec: RunSpec, benchmark: str) -> int:
        """Return the rows of a run as planned, with the paper's prompts and images, that are answered or left out."""
        groups = [
            g for g in self._groups if g.setup.limit == spec.limit and is_of(g, spec.model, spec.choice, spec.protocol)
        ]
        groups = [group for group in groups if not self.unlike_paper(group, spec.model)]
        runs = [run for group in groups for run in group.runs if run.setup.seed == spec.choice.seed]
        entries = [run.datasets[benchmark] for run in runs if benchmark in run.datasets]
        return max((entry.answered + entry.refused for entry in entries), default=0)

    def on_usual_machine(self, model: str) -> list[RunRecord]:
        """Return the runs of a model with the precision, kernel and kind of device that most of its runs have."""
        if model not in self._usual:
            named = [run.setup for run in self.records if run.model.name == model]
            usual = max(named, key=lambda one: sum(same_machine(one, other) for other in named), default=None)
            self._usual[model] = [run for run in self.records if usual and same_machine(run.setup, usual)]
        return self._usual[model]


def is_of(group: SeedGroup, model: str, choice: MethodSpec, protocol: str = "site") -> bool:
    """Return whether runs are of this model, method and protocol, with all fields and the ratio equal.

    Seeds may differ, and without pruning the protocol means nothing.
    """
    setup = group.setup
    return (
        any(run.model.name == model for run in group.runs)
        and (setup.protocol == protocol or setup.method.kind == "none")
        and setup.method.name == choice.name
        and abs(setup.ratio - choice.pruner().ratio) < RATIO_TOLERANCE
        and [_without_budget(part) for part in setup.method.resolved] == fields(choice)
    )


def fields(choice: MethodSpec) -> list[dict[str, Any]]:
    """Return every field of every part but the budget, as a run record stores them."""
    pruner = choice.pruner()
    parts = pruner.parts if isinstance(pruner, Compose) else (pruner,)
    return [_without_budget(plain({f.name: getattr(part, f.name) for f in dataclasses.fields(part)})) for part in parts]


def _without_budget(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in BUDGET}


def _on(group: SeedGroup, benchmark: str) -> SeedGroup | None:
    """Return the group's runs that have the benchmark; None if there are none."""
    runs = tuple(run for run in group.runs if benchmark in run.datasets)
    return SeedGroup(runs) if runs else None
