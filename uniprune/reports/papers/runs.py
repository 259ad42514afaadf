"""Finding the stored runs that a paper's number is to be compared with."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from uniprune.evaluation.method_spec import MethodSpec, plain
from uniprune.pruning.base import Compose
from uniprune.results.records import DatasetRecord, RunRecord, Setup

Entry = tuple[RunRecord, DatasetRecord]
"""A run and one of its benchmarks."""

RATIO_TOLERANCE = 1e-4
"""Ratios that differ less are one."""
BUDGET = {"ratio", "seed"}
"""Fields of a method that are told apart by the run's own ratio and seed."""


class Runs:
    """Stored runs, asked by model, method and benchmark.

    Args:
        records: all of them. Those under the "average" protocol are left out: papers mean the ratio where it is pruned.
    """

    def __init__(self, records: Iterable[RunRecord]) -> None:
        self._records = [r for r in records if r.setup.protocol == "site" or r.setup.method.kind == "none"]

    def entries(self, model: str, choice: MethodSpec, benchmark: str) -> list[Entry]:
        """The runs of one set-up that were asked the benchmark, one per seed; empty where there are none.

        Of several set-ups (row limits, precisions, devices) the one with the most rows scored counts, and of these the
        one with the most seeds.
        """
        groups: dict[str, list[Entry]] = defaultdict(list)
        for record in self._records:
            entry = record.datasets.get(benchmark)
            if entry is not None and is_of(record, model, choice):
                groups[surroundings(record.setup)].append((record, entry))
        best = max(groups.values(), key=scored_rows, default=[])
        return sorted(best, key=lambda entry: entry[0].setup.seed)

    def vanilla(self, pruned: Entry, benchmark: str) -> list[Entry]:
        """The un-pruned run that differs from `pruned` in method, budget and seed only; empty where there is none."""
        record, entry = pruned
        return [
            (other, other.datasets[benchmark])
            for other in self._records
            if other.setup.method.kind == "none"
            and benchmark in other.datasets
            and comparable(record, other)
            and (other.datasets[benchmark].data, other.datasets[benchmark].prompts) == (entry.data, entry.prompts)
        ][:1]

    def of(self, model: str, benchmark: str) -> list[Entry]:
        """Whatever the model was asked of a benchmark."""
        return [(r, r.datasets[benchmark]) for r in self._records if r.model.name == model and benchmark in r.datasets]


def is_of(record: RunRecord, model: str, choice: MethodSpec) -> bool:
    """Whether a run is of this model and method, with all fields and ratio equal, whatever its seed."""
    setup = record.setup
    return (
        record.model.name == model
        and setup.method.name == choice.name
        and abs(setup.ratio - choice.pruner().ratio) < RATIO_TOLERANCE
        and [without(part, BUDGET) for part in setup.method.resolved] == fields(choice)
    )


def fields(choice: MethodSpec) -> list[dict[str, Any]]:
    """Every field of every part but the budget, as a run record has them."""
    pruner = choice.pruner()
    parts = pruner.parts if isinstance(pruner, Compose) else (pruner,)
    return [without(plain({f.name: getattr(part, f.name) for f in dataclasses.fields(part)}), BUDGET) for part in parts]


def without(table: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The table without some keys."""
    return {key: value for key, value in table.items() if key not in names}


def surroundings(setup: Setup) -> str:
    """What else tells runs of one method apart; equal for runs that differ in their seed only."""
    told = setup.model_dump(mode="json", exclude={"seed": True, "method": {"resolved", "passed"}})
    return json.dumps(told, sort_keys=True)


def comparable(one: RunRecord, other: RunRecord) -> bool:
    """Whether two runs differ in method, budget and seed only."""
    mine, theirs = (
        run.setup.model_dump(mode="json", exclude={"method", "ratio", "protocol", "seed"}) for run in (one, other)
    )
    return bool(mine == theirs)


def scored_rows(entries: Sequence[Entry]) -> tuple[int, int]:
    """Rows scored in a run, and how many runs."""
    return max(entry.score.rows if entry.score else 0 for _, entry in entries), len(entries)
