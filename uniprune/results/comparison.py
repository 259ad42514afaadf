"""Stored runs side by side: seeds of one method as one group, and joint bootstrap estimates of every group's scores."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any
from zlib import crc32

import numpy as np

from uniprune.results.fidelity import FidelityEstimate, closeness
from uniprune.results.fidelity import Fidelity
from uniprune.results.records import DatasetRecord, RunRecord, ScoreRecord, Setup
from uniprune.results.statistics import Estimate, mean, resample
from uniprune.results.statistics.estimate import RESAMPLES

SETTINGS = ("weights", "processor", "prompts", "max_new_tokens", "limit", "dtype", "attention", "device")
"""Fields of `Setup` that runs must share to be compared as methods."""

Compare = Callable[[RunRecord, RunRecord, str], Fidelity | None]
"""Fidelity of the second run to the first on one benchmark."""


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seed only.

    Attributes:
        runs: at least one, by seed.
    """

    runs: tuple[RunRecord, ...]

    @property
    def setup(self) -> Setup:
        """What they share, but for the seed."""
        return self.runs[0].setup

    @property
    def settings(self) -> str:
        """What two groups must share to be compared as methods; says nothing to a reader."""
        return _plain({name: getattr(self.setup, name) for name in SETTINGS})

    @property
    def scores(self) -> dict[str, DatasetRecord]:
        """Benchmarks that every run has scored, as the first run has them."""
        return {
            name: entry for name, entry in scored(self.runs[0]).items() if all(name in scored(run) for run in self.runs)
        }

    @property
    def entries(self) -> list[DatasetRecord]:
        """Scored benchmarks of all runs."""
        return [entry for run in self.runs for entry in scored(run).values()]

    def spread(self, names: Iterable[str]) -> float | None:
        """Standard deviation over the seeds of the mean score on `names`; None of a single run."""
        wanted = list(names)
        means = [float(np.mean([_score(run, name).value for name in wanted])) for run in self.runs]
        return stdev(means) if len(means) > 1 else None


def scored(record: RunRecord) -> dict[str, DatasetRecord]:
    """The run's benchmarks that have a score."""
    return {name: entry for name, entry in record.datasets.items() if entry.score is not None}


def groups(records: Iterable[RunRecord]) -> list[SeedGroup]:
    """The runs, those that differ in their seed only together, in the order in which they first appear."""
    found: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        setup = record.setup.model_dump(mode="json")
        setup["seed"] = setup["method"]["resolved"] = None
        parts = [{**part, "seed": None} for part in record.setup.method.resolved]
        found[_plain({**setup, "parts": parts})].append(record)
    return [SeedGroup(tuple(sorted(runs, key=lambda run: run.setup.seed))) for runs in found.values()]


class RunComparison:
    """Estimates of every group's scores. All runs that were asked the same questions are resampled together.

    Args:
        records: all runs that may be looked at. likeness: compares their stored answers; without it nothing is said
            about fidelity.
    """

    def __init__(self, records: Sequence[RunRecord], likeness: Compare | None = None) -> None:
        self.groups = groups(records)
        self._likeness = likeness
        self._asked: dict[tuple[str, ...], dict[str, ScoreRecord]] = defaultdict(dict)
        for record in records:
            for name, entry in record.datasets.items():
                if entry.score is not None:
                    self._asked[_questions(name, entry)][record.identity] = entry.score
        self._estimates: dict[tuple[str, ...], dict[str, Estimate]] = {}
        self._closeness: dict[tuple[str, str], dict[str, FidelityEstimate]] = {}

    def score(self, group: SeedGroup, name: str) -> Estimate:
        """A group's score on one benchmark: the mean over its seeds, which are resampled as well as the items."""
        return _over_seeds(group, [self._run(run, name) for run in group.runs])

    def average(self, group: SeedGroup, names: Iterable[str]) -> Estimate:
        """The plain mean of a group's scores over some benchmarks."""
        return mean([self.score(group, name) for name in names])

    def vanilla(self, group: SeedGroup) -> SeedGroup | None:
        """The un-pruned runs that a group is measured against: same weights, processor, settings and rows."""
        same = (one for one in self.groups if one.setup.method.kind == "none" and one.settings == group.settings)
        return next(same, None)

    def relative(self, group: SeedGroup, names: Iterable[str]) -> Estimate | None:
        """Mean over benchmarks of score / un-pruned score, in percent; None unless every one was asked of both.

        A benchmark on which the un-pruned model scores zero is left out.
        """
        reference = self.vanilla(group)
        if reference is None:
            return None
        wanted = list(names)
        if any(not comparable(group, reference, name) for name in wanted):
            return None
        bases = {name: self.score(reference, name) for name in wanted}
        shares = [self.score(group, name) / base for name, base in bases.items() if base.value > 0]
        return mean(shares) if shares else None

    def closeness(self, group: SeedGroup) -> FidelityEstimate | None:
        """Agreement and first-token KL with the un-pruned model: means over benchmarks, each counting once."""
        reference = self.vanilla(group)
        if self._likeness is None or reference is None:
            return None
        names = dict.fromkeys(name for run in group.runs for name in run.datasets)
        each = {name: self._compared(reference, name) for name in names}
        found = [[one[run.identity] for run in group.runs if run.identity in one] for one in each.values()]
        found = [runs for runs in found if runs]
        if not found:
            return None
        kls = [[one.kl for one in runs if one.kl is not None] for runs in found]
        complete = list(map(len, kls)) == list(map(len, found))
        return FidelityEstimate(
            agreement=mean([_over_seeds(group, [one.agreement for one in runs]) for runs in found]),
            kl=mean([_over_seeds(group, runs) for runs in kls]) if complete else None,
        )

    def _compared(self, reference: SeedGroup, name: str) -> dict[str, FidelityEstimate]:
        """Identity -> closeness on one benchmark of all runs that are measured against `reference`."""
        base, compare = reference.runs[0], self._likeness
        entry, key = base.datasets.get(name), (base.identity, name)
        if entry is None or compare is None:
            return {}
        if key not in self._closeness:
            runs = [run for group in self.groups if group.settings == reference.settings for run in group.runs]
            same = [run for run in runs if name in run.datasets and _asked(run.datasets[name]) == _asked(entry)]
            told = {run.identity: one for run in same if (one := compare(base, run, name)) is not None}
            # Which rows share a picture is stored with the score.
            found = closeness(told, entry.score.clusters if entry.score else None, name)
            if base.identity in found:  # it agrees with itself, whatever is drawn
                found[base.identity] = found[base.identity].certain()
            self._closeness[key] = found
        return self._closeness[key]

    def _run(self, run: RunRecord, name: str) -> Estimate:
        """One run's score."""
        questions = _questions(name, run.datasets[name])
        if questions not in self._estimates:
            asked = self._asked[questions]
            self._estimates[questions] = dict(zip(asked, resample(list(asked.values()), name), strict=True))
        estimate, value = self._estimates[questions][run.identity], _score(run, name).value
        # An interval of the mean credit, where the headline does not follow from items, is moved to the headline.
        return replace(estimate, value=value, draws=estimate.draws + (value - estimate.value))


def _over_seeds(group: SeedGroup, runs: Sequence[Estimate]) -> Estimate:
    """The mean over a group's seeds, which are resampled as well as the items."""
    if len(runs) == 1:
        return runs[0]
    rng = np.random.default_rng([crc32(run.identity.encode()) for run in group.runs])
    times = rng.multinomial(len(runs), [1 / len(runs)] * len(runs), RESAMPLES).T / len(runs)
    draws = (times * np.stack([run.draws for run in runs])).sum(0)
    return replace(mean(runs), draws=draws, clusters=min(run.clusters for run in runs))


def comparable(one: SeedGroup, other: SeedGroup, name: str) -> bool:
    """Whether both groups have a score of the same questions by the same judge."""
    entries = [group.scores.get(name) for group in (one, other)]
    return all(entries) and len({_questions(name, entry) for entry in entries if entry}) == 1


def _questions(name: str, entry: DatasetRecord) -> tuple[str, ...]:
    """What two runs must share for their items to be pairs."""
    return (name, *_asked(entry), entry.score.judge if entry.score else "")


def _asked(entry: DatasetRecord) -> tuple[str, ...]:
    """Which rows in which words."""
    return entry.data, entry.prompts


def _score(run: RunRecord, name: str) -> ScoreRecord:
    score = run.datasets[name].score
    if score is None:
        raise ValueError(f"run {run.identity} has no score of {name}")
    return score


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
