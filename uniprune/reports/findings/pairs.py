"""Paired tests of all methods on all benchmarks."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from uniprune.reports.findings.study import Study, common
from uniprune.results.comparison import SeedGroup
from uniprune.results.records import ScoreRecord
from uniprune.results.statistics import Comparison, holm, mcnemar, paired
from uniprune.utils.tables import to_csv

COLUMNS = (
    *("model", "ratio", "protocol", "benchmark", "method", "other", "difference", "low", "high", "test", "p"),
    "p corrected",
)


def pairs_csv(study: Study) -> str:
    """Return all paired comparisons as CSV, Holm-corrected within each model, ratio and protocol.

    McNemar's exact test where credits are 0 or 1, items are independent and both methods ran once; else paired
    bootstrap.
    """
    rows: list[tuple[object, ...]] = []
    for field in study.fields():
        found = [
            (one, other, name, compare(study, one, other, name))
            for one, other in combinations(field, 2)
            for name in common([one, other])
        ]
        for (one, other, name, test), p in zip(found, holm([test.p for *_, test in found]), strict=True):
            setup = one.setup
            where = (one.runs[0].model.name, setup.ratio, setup.protocol, name)
            outcome = (test.difference, test.low, test.high, test.test, test.p, p)
            rows.append((*where, setup.method.name, other.setup.method.name, *outcome))
    return to_csv(COLUMNS, rows)


def compare(study: Study, one: SeedGroup, other: SeedGroup, name: str) -> Comparison:
    """Test one method against another on one benchmark."""
    test = paired(study.comparison.score(one, name) - study.comparison.score(other, name))
    scores = [run.datasets[name].score for group in (one, other) for run in group.runs]
    first, second = (scores[0], scores[1]) if len(scores) == 2 else (None, None)
    if first and second and first.per_item.keys() == second.per_item.keys() and _plain(first) and _plain(second):
        return replace(test, p=mcnemar(first.per_item, second.per_item), test="McNemar")
    return test


def _plain(score: ScoreRecord) -> bool:
    """Return whether the headline is the mean of 0/1 credits of independent items."""
    shared = [score.clusters[item] for item in score.per_item if item in score.clusters]
    return not score.parts and len(shared) == len(set(shared)) and set(score.per_item.values()) <= {0.0, 1.0}
