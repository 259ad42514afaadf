"""Material of findings: groups of runs that may be compared, tested differences, commands for runs that are missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from uniprune.registry import METHODS
from uniprune.results import budgets
from uniprune.results.comparison import RunComparison, SeedGroup, comparable, rows_key
from uniprune.results.few import too_few
from uniprune.results.hard_accuracy import HardRows
from uniprune.results.records import RunRecord
from uniprune.results.statistics import Comparison, Estimate, holm, paired
from uniprune.results.statistics.comparisons import LEVEL
from uniprune.utils.paths import PROGRAM

MARGIN = 2.0
"""Points within which two scores count as equal unless the user gives another margin."""


@dataclass(frozen=True)
class Line:
    """One difference.

    Attributes:
        label: the two sides and where they were compared.
        difference: first minus second.
        test: the outcome; None if there are too few images for a test.
        p: corrected for all lines of its finding; 1 without a test.
    """

    label: str
    difference: Estimate
    test: Comparison | None
    p: float = 1.0

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is significant, else 0."""
        return 0 if self.p >= LEVEL else 1 if self.difference.value > 0 else -1

    def __str__(self) -> str:
        """Return `* +12.3 [+8.1, +16.5]  p 0.01  one − other`, the star if it is significant."""
        value = f"{'*' if self.sign else ' '} {self.difference.value:+7.1f}"
        if self.test is None:
            return f"{value}  not tested, {too_few(self.difference)}  {self.label}"
        return f"{value} [{self.test.low:+.1f}, {self.test.high:+.1f}]  p {self.p:.2g}  {self.label}"


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, tested on stored runs.

    Attributes:
        claim: one sentence.
        verdict: one sentence.
        lines: the tests behind the verdict.
        missing: the command to run, if there is not enough data.
        details: sentences that the verdict rests on, beside the lines.
    """

    claim: str
    verdict: str = ""
    lines: Sequence[Line] = ()
    missing: str = ""
    details: Sequence[str] = ()


class Study:
    """The pruned groups among stored runs.

    Args:
        records: all stored runs.
        margin: points within which two scores count as equal.
    """

    def __init__(self, records: Sequence[RunRecord], margin: float = MARGIN) -> None:
        self.comparison, self.margin = RunComparison(records), margin
        self.hard = HardRows(self.comparison)
        self.pruned = [group for group in self.comparison.groups if group.setup.method.kind != "none" and group.scores]

    def fields(self, name: str | None = None) -> list[list[SeedGroup]]:
        """Return the groups that are compared as methods: same model, settings, questions and measured budget.

        Args:
            name: a benchmark, which the groups then have scored and on which their budgets are equal.
        """
        if name is None:
            parts = budgets.budget_groups(self.pruned)
        else:
            groups = [group for group in self.pruned if name in group.scores]
            parts = budgets.budget_groups(groups, [name], lambda one: (one.settings, rows_key(one.scores[name])))
        return [budgets.distinct(part.members) for part in parts]

    @property
    def benchmarks(self) -> list[str]:
        """Benchmarks that some group has scored."""
        return list(dict.fromkeys(name for group in self.pruned for name in group.scores))

    def duels(self, names: Sequence[str] | None = None) -> list[tuple[SeedGroup, SeedGroup, str]]:
        """Return every pair of comparable groups on every benchmark, or on some."""
        pairs = (
            (one, other, name)
            for name in (self.benchmarks if names is None else names)
            for f in self.fields(name)
            for one, other in combinations(f, 2)
        )
        return [(one, other, name) for one, other, name in pairs if comparable(one, other, name)]

    def by(self, key: Callable[[SeedGroup], object]) -> list[list[SeedGroup]]:
        """Return the pruned groups, those of equal `key` together."""
        found: dict[object, list[SeedGroup]] = defaultdict(list)
        for group in self.pruned:
            found[key(group)].append(group)
        return list(found.values())

    def difference(self, one: SeedGroup, other: SeedGroup, name: str) -> Estimate:
        """Return the score of one minus that of the other on a benchmark."""
        return self.comparison.score(one, name) - self.comparison.score(other, name)

    def mean_difference(self, one: SeedGroup, other: SeedGroup) -> Estimate | None:
        """Return the average of one minus that of the other, over benchmarks that both ran; None without any."""
        names = common([one, other])
        return self.comparison.average(one, names) - self.comparison.average(other, names) if names else None

    def command(self, *words: str, ratios: str = "", rivals: bool = False) -> str:
        """Return the command that adds the runs a finding lacks, for the model that was run most.

        Args:
            words: methods.
            ratios: keep ratios; by default those that were run.
            rivals: whether methods are compared at one ratio, for which their budgets must be equal.
        """
        models = [run.model.name for group in self.comparison.groups for run in group.runs]
        known = sorted({group.setup.ratio for group in self.pruned}) or [0.111]
        model = max(models, key=models.count) if models else "MODEL"
        ratios = ratios or " ".join(f"{ratio:g}" for ratio in known)
        command = f"{PROGRAM} --model {model} --method {' '.join(words)} --ratio {ratios}"
        if rivals and budgets.budget_notes(budgets.budget_groups(self.pruned)):
            return f"no methods of equal budget to compare (see below): run `{command} --protocol average`"
        return f"not enough data: run `{command}`"


def common(groups: Sequence[SeedGroup]) -> list[str]:
    """Return the benchmarks on which all groups have a score on the same questions by the same judge."""
    first = groups[0]
    return [name for name in first.scores if all(comparable(first, other, name) for other in groups[1:])]


def by_chance(group: SeedGroup) -> bool:
    """Return whether every part of the method chooses at random: a random baseline."""
    random = group.runs[0].random
    return bool(random) and all(random)


def parts(group: SeedGroup) -> list[str]:
    """Return the names of the methods that a composition is made of."""
    return re.split(r"\+(?=[^+])", group.setup.method.name)  # a "+" that ends a name belongs to it


def place(*groups: SeedGroup, method: bool = False) -> str:
    """Return what groups of one model have in common: model, ratios, and protocols if not the usual one alone."""
    setup = groups[0].setup
    ratios = list(dict.fromkeys(f"{group.setup.ratio:g}" for group in groups))
    protocols = sorted({group.setup.protocol for group in groups}, reverse=True)
    words = [groups[0].runs[0].model.name, *[setup.method.name] * method]
    words.append("ratio" + "s" * (len(ratios) > 1) + " " + " and ".join(ratios))
    words += [" and ".join(protocols) + " protocol"] * (protocols != ["site"])
    return ", ".join([*words, *[f"limit {setup.limit}"] * bool(setup.limit)])


def equal_methods(sides: Sequence[Mapping[object, SeedGroup]]) -> list[object]:
    """Return the most methods that are on every side, such as a model or ratio, and of equal budget within each."""
    methods = [method for method in sides[0] if all(method in side for side in sides)]
    places: dict[object, list[int]] = {method: [] for method in methods}
    for side in sides:
        parts = budgets.equal_budgets([side[method] for method in methods])
        for method in methods:
            places[method].append(next(n for n, part in enumerate(parts) if side[method] in part.members))
    alike: dict[tuple[int, ...], list[object]] = defaultdict(list)
    for method, place_of in places.items():
        alike[tuple(place_of)].append(method)
    return max(alike.values(), key=len, default=[])


def tested(differences: Iterable[tuple[str, Estimate | None]]) -> list[Line]:
    """Test differences as one family; those with too few images stay untested."""
    lines = [Line(label, one, paired(one)) for label, one in differences if one is not None]
    corrected = iter(holm([line.test.p for line in lines if line.test]))
    return [replace(line, p=next(corrected)) if line.test else line for line in lines]


def verdict(lines: Sequence[Line]) -> str:
    """Count the lines for and against a claim that expects positive differences."""
    known = [line for line in lines if line.test]
    for_, against = (sum(line.sign == sign for line in known) for sign in (1, -1))
    word = "mixed" if for_ and against else "holds" if for_ else "does not hold" if against else "undecided"
    counts = f"{for_} of {len(known)} for it, {against} against, {len(known) - for_ - against} not significant"
    return untested(lines) or f"{word}: {counts}" + (
        f"; {len(lines) - len(known)} more have too few images" * (known != lines)
    )


def untested(lines: Sequence[Line]) -> str:
    """Return why there is no verdict, if no line could be tested; else nothing."""
    fewest = min(lines, key=lambda line: line.difference.clusters, default=None)
    if fewest is None or any(line.test for line in lines):
        return ""
    return f"no verdict: {too_few(fewest.difference)} a benchmark or category"


def named(wanted: Callable[[Any], bool], count: int = 2) -> list[str]:
    """Return some registered methods of a kind, for proposed commands."""
    return [name for name in METHODS.names() if wanted(METHODS.get(name))][:count]
