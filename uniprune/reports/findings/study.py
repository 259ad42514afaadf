"""Material of findings: groups of runs that may be compared, tested differences, commands for runs that are missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from uniprune.registry import METHODS
from uniprune.results.comparison import RunComparison, SeedGroup, comparable
from uniprune.results.records import RunRecord
from uniprune.results.statistics import Comparison, Estimate, holm, paired
from uniprune.results.statistics.comparisons import LEVEL
from uniprune.utils.paths import PROGRAM


@dataclass(frozen=True)
class Line:
    """One tested difference.

    Attributes:
        label: the two sides and where they were compared.
        test: the outcome.
        p: corrected for all lines of its finding.
    """

    label: str
    test: Comparison
    p: float

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is significant, else 0."""
        return 0 if self.p >= LEVEL else 1 if self.test.difference > 0 else -1


@dataclass(frozen=True)
class Finding:
    """A claim of the paper, tested on stored runs.

    Attributes:
        claim: one sentence.
        verdict: one sentence.
        lines: the tests behind the verdict.
        missing: the command to run, if there is not enough data.
    """

    claim: str
    verdict: str = ""
    lines: Sequence[Line] = ()
    missing: str = ""


class Study:
    """The pruned groups among stored runs.

    Args:
        records: all stored runs.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.comparison = RunComparison(records)
        self.pruned = [group for group in self.comparison.groups if group.setup.method.kind != "none" and group.scores]

    def fields(self) -> list[list[SeedGroup]]:
        """Return the groups that differ in the method only: same model, settings, ratio and protocol."""
        return self.by(lambda group: (group.settings, group.setup.ratio, group.setup.protocol))

    def by(self, key: Callable[[SeedGroup], object]) -> list[list[SeedGroup]]:
        """Return the pruned groups, those of equal `key` together."""
        found: dict[object, list[SeedGroup]] = defaultdict(list)
        for group in self.pruned:
            found[key(group)].append(group)
        return list(found.values())

    def difference(self, one: SeedGroup, other: SeedGroup) -> Estimate | None:
        """Return the average of one minus that of the other, over benchmarks that both ran; None without any."""
        names = common([one, other])
        return self.comparison.average(one, names) - self.comparison.average(other, names) if names else None

    def command(self, *words: str, ratios: str = "") -> str:
        """Return the command that adds the runs a finding lacks, for the model that was run most."""
        models = [run.model.name for group in self.comparison.groups for run in group.runs]
        known = sorted({group.setup.ratio for group in self.pruned}) or [0.111]
        model = max(models, key=models.count) if models else "MODEL"
        ratios = ratios or " ".join(f"{ratio:g}" for ratio in known)
        return f"not enough data: run `{PROGRAM} --model {model} --method {' '.join(words)} --ratio {ratios}`"


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


def place(group: SeedGroup, method: bool = False) -> str:
    """Return the model, the ratio, and the protocol if it is not the usual one."""
    setup = group.setup
    words = [group.runs[0].model.name, *[setup.method.name] * method, f"ratio {setup.ratio:g}"]
    words += ["average protocol"] * (setup.protocol == "average") + [f"limit {setup.limit}"] * bool(setup.limit)
    return ", ".join(words)


def tested(differences: Iterable[tuple[str, Estimate | None]]) -> list[Line]:
    """Test differences as one family."""
    kept = [(label, paired(difference)) for label, difference in differences if difference is not None]
    corrected = holm([test.p for _, test in kept])
    return [Line(label, test, p) for (label, test), p in zip(kept, corrected, strict=True)]


def verdict(lines: Sequence[Line]) -> str:
    """Count the lines for and against a claim that expects positive differences."""
    for_, against = (sum(line.sign == sign for line in lines) for sign in (1, -1))
    word = "mixed" if for_ and against else "holds" if for_ else "does not hold" if against else "undecided"
    return f"{word}: {for_} of {len(lines)} for it, {against} against, {len(lines) - for_ - against} not significant"


def named(wanted: Callable[[Any], bool], count: int = 2) -> list[str]:
    """Return some registered methods of a kind, for proposed commands."""
    return [name for name in METHODS.names() if wanted(METHODS.get(name))][:count]
