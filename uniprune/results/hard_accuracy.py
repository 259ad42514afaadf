"""Accuracy on hard and easy rows, with intervals: of methods with a resized image of the same measured budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uniprune.results.budgets import agree, visual_tokens
from uniprune.results.comparison import RunComparison, SeedGroup, comparable, over_seeds
from uniprune.results.hard_rows import RIGHT, row_groups
from uniprune.results.records import ScoreRecord
from uniprune.results.statistics import Estimate, normal_means
from uniprune.results.statistics.estimate import SHARE

PARTS = ("hard", "easy", "hard known", "easy known")
"""Rows that the resized image answers wrong, and right; *known* ones are also right with the whole image."""


@dataclass(frozen=True)
class PartScore:
    """Score of a method on one part of a benchmark's rows.

    Attributes:
        accuracy: mean credit in percent; None for a part without rows.
        rows: their number.
        unanswered: rows of these without a credit, over all seeds; they count as wrong.
    """

    accuracy: Estimate | None
    rows: int
    unanswered: int


@dataclass(frozen=True)
class NoReference:
    """Absence of a resized run of equal budget.

    Attributes:
        tokens: measured visual tokens per layer of the method.
        others: those of the resized runs on the same rows, ascending; empty if there is no such run.
    """

    tokens: float | None
    others: tuple[float, ...]


class HardRows:
    """Scores of groups of runs on hard and easy rows, computed when first used.

    A run that resizes images, of kind "input", is the reference of methods with the same settings, scored on the same
    questions, whose measured visual tokens on the benchmark agree with its own; of several the nearest.

    Args:
        comparison: of all runs.

    Attributes:
        benchmarks: those that a resized run has scored.
    """

    def __init__(self, comparison: RunComparison) -> None:
        self.comparison = comparison
        self._alike: dict[str, list[SeedGroup]] = defaultdict(list)  # by settings; empty if nothing is resized
        resized = [group for group in comparison.groups if _resizes(group)]
        for group in comparison.groups if resized else ():
            self._alike[group.settings].append(group)
        self.benchmarks = list(dict.fromkeys(name for group in resized for name in group.scores))
        self._resized = {key: [one for one in alike if _resizes(one)] for key, alike in self._alike.items()}
        self._references: dict[tuple[str, str], SeedGroup | NoReference | None] = {}
        self._parts: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        self._estimates: dict[tuple[str, str, str], dict[str, Estimate]] = {}

    def reference(self, group: SeedGroup, name: str) -> SeedGroup | NoReference | None:
        """Return the resized run that parts the rows for a group; None for groups that have none by their nature.

        Those are the un-pruned and the resized runs themselves.
        """
        key = group.runs[0].identity, name
        if key not in self._references:
            self._references[key] = self._nearest(group, name)
        return self._references[key]

    def _nearest(self, group: SeedGroup, name: str) -> SeedGroup | NoReference | None:
        """Find the reference of a group."""
        if group.setup.method.kind in ("none", "input") or name not in group.scores:
            return None
        tokens = visual_tokens(group, [name])
        same = [one for one in self._resized.get(group.settings, ()) if comparable(group, one, name)]
        budgets = [visual_tokens(one, [name]) for one in same]
        equal = [(abs((spent or 0.0) - (tokens or 0.0)), n) for n, spent in enumerate(budgets) if agree(tokens, spent)]
        if not equal:
            return NoReference(tokens, tuple(sorted(spent for spent in budgets if spent is not None)))
        return same[min(equal)[1]]

    def parts(self, reference: SeedGroup, name: str) -> Mapping[str, tuple[str, ...]]:
        """Return part -> rows; without an un-pruned run on the same questions there are no known ones."""
        run = reference.runs[0]
        if (run.identity, name) not in self._parts:
            resized = {row: credit >= RIGHT for row, credit in _score(reference, name).per_item.items()}
            groups = row_groups(resized)
            found = {"hard": groups.hard, "easy": groups.easy}
            whole = self.comparison.baseline(reference)
            if whole is not None and comparable(reference, whole, name):
                right = {row: credit >= RIGHT for row, credit in _score(whole, name).per_item.items()}
                known = row_groups(resized, right)
                found |= {"hard known": known.hard, "easy known": known.easy}
            self._parts[run.identity, name] = found
        return self._parts[run.identity, name]

    def scores(self, group: SeedGroup, name: str) -> dict[str, PartScore]:
        """Return part -> score of a group that has a reference; an empty mapping for any other."""
        reference = self.reference(group, name)
        if not isinstance(reference, SeedGroup):
            return {}
        found = {}
        for part, rows in self.parts(reference, name).items():
            estimates = self._estimated(reference, name, part) if rows else {}
            found[part] = _part_score(group, name, rows, estimates)
        return found

    def score_by(self, group: SeedGroup, reference: SeedGroup, name: str, part: str) -> PartScore | None:
        """Return the score of a group on a part by any resized run, whatever its budget; it pairs with no other score.

        None if the two were not scored on the same questions, or if there is no un-pruned run for a known part.
        """
        rows = self.parts(reference, name).get(part) if comparable(group, reference, name) else None
        if rows is None:
            return None
        key = f"{name}: {part} rows by {reference.runs[0].identity}"
        estimates = _estimates([group], name, rows, _score(reference, name), key) if rows else {}
        return _part_score(group, name, rows, estimates)

    def _estimated(self, reference: SeedGroup, name: str, part: str) -> dict[str, Estimate]:
        """Map the identity of every run with this reference to its accuracy; all are estimated together."""
        identity = reference.runs[0].identity
        if (identity, name, part) not in self._estimates:
            members = [group for group in self._alike[reference.settings] if self.reference(group, name) is reference]
            rows, key = self.parts(reference, name)[part], f"{name}: {part} rows by {identity}"
            found = _estimates(members, name, rows, _score(reference, name), key)
            self._estimates[identity, name, part] = found
        return self._estimates[identity, name, part]


def _estimates(
    groups: Sequence[SeedGroup], name: str, rows: Sequence[str], score: ScoreRecord, key: str
) -> dict[str, Estimate]:
    """Map the identity of every run of some groups to its accuracy on rows; clusters are those of a score."""
    runs = {run.identity: run.datasets[name].score for group in groups for run in group.runs}
    credits = {run: one.per_item for run, one in runs.items() if one}
    values = np.array([[100 * each.get(row, 0.0) for row in rows] for each in credits.values()])
    return dict(zip(credits, normal_means(rows, score.clusters, values, key, SHARE), strict=True))


def _part_score(group: SeedGroup, name: str, rows: Sequence[str], estimates: Mapping[str, Estimate]) -> PartScore:
    """Return the score of a group on some rows from the estimates of its runs."""
    known = [run.datasets[name].score for run in group.runs]
    missing = sum(row not in score.per_item for score in known if score for row in rows)
    each = {run.identity: estimates[run.identity] for run in group.runs if rows}
    return PartScore(over_seeds(each) if each else None, len(rows), missing)


def _resizes(group: SeedGroup) -> bool:
    """Return whether a group resizes images in place of pruning."""
    return group.setup.method.kind == "input"


def _score(group: SeedGroup, name: str) -> ScoreRecord:
    """Return the score of a group's first run; `scores` has the benchmark."""
    score = group.scores[name].score
    if score is None:
        raise ValueError(f"{group.label} has no score of {name}")
    return score
