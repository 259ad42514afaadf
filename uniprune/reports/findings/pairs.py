"""Paired tests of all methods on all benchmarks."""

from __future__ import annotations

from collections import defaultdict

from uniprune.reports.findings.study import Study
from uniprune.results.budgets import visual_tokens
from uniprune.results.comparison import SeedGroup
from uniprune.results.few import too_few
from uniprune.results.statistics import Estimate, holm, paired
from uniprune.utils.tables import to_csv

COLUMNS = (
    *("model", "ratio", "protocol", "benchmark", "method", "other", "difference", "low", "high", "test", "p"),
    *("p corrected", "visual tokens", "other visual tokens", "other ratio", "other protocol"),
)


def pairs_csv(study: Study) -> str:
    """Return all paired comparisons of equal budgets as CSV, Holm-corrected within each model and its settings.

    A pair with too few images has a difference only.
    """
    families: dict[object, list[tuple[SeedGroup, SeedGroup, str]]] = defaultdict(list)
    for one, other, name in study.duels():
        families[one.settings].append((one, other, name))
    rows: list[tuple[object, ...]] = []
    for duels in families.values():
        differences = [
            study.comparison.score(one, name) - study.comparison.score(other, name) for one, other, name in duels
        ]
        for (one, other, name), outcome in zip(duels, _outcomes(differences), strict=True):
            first, second = one.setup, other.setup
            where = (one.runs[0].model.name, first.ratio, first.protocol, name, first.method.name, second.method.name)
            budgets = (visual_tokens(group, [name]) for group in (one, other))
            rows.append((*where, *outcome, *budgets, second.ratio, second.protocol))
    return to_csv(COLUMNS, rows)


def _outcomes(differences: list[Estimate]) -> list[tuple[object, ...]]:
    """Return difference, ends of the interval, test, p and corrected p of one family."""
    tests = [paired(difference) for difference in differences]
    corrected = iter(holm([test.p for test in tests if test]))
    return [
        (test.difference, test.low, test.high, test.test, test.p, next(corrected))
        if test
        else (difference.value, None, None, too_few(difference), None, None)
        for difference, test in zip(differences, tests, strict=True)
    ]
