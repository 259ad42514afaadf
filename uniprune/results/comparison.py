"""Stored runs side by side: seeds of one method as one group, and joint bootstrap estimates of every group's scores.

Runs that left out different rows of a benchmark were scored on different questions. They are shown, but neither ranked
nor paired with each other: rows drop out for a reason, so the rows that all runs share are no fair sample either, and
every score would depend on what other runs happen to be stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import stdev

import numpy as np

from uniprune.results.fidelity import Fidelity, FidelityEstimate, estimate_fidelity
from uniprune.results.records import DatasetRecord, RunRecord, ScoreRecord, Setup
from uniprune.results.statistics import Estimate, mean, ratios, resample
from uniprune.utils.hashing import stable_hash

SETTINGS = (
    *("weights", "processor", "images", "image_decoding", "prompts", "question", "max_new_tokens", "limit"),
    *("frames", "fps"),
    *("dtype", "attention", "tower_attention", "device", "serving"),
)
"""Fields of `Setup` that runs must share to be compared as methods."""

MACHINE = ("weights", "processor", "dtype", "attention", "tower_attention", "device", "serving")
"""Fields of `Setup` that runs must share for the time per row of one to be a forecast for the other."""

CompareRuns = Callable[[RunRecord, RunRecord, str], Fidelity | None]
"""Returns the fidelity of the second run to the first on one benchmark."""


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seed only, scored on the same questions of every benchmark that they share.

    Attributes:
        runs: at least one, ordered by seed.
    """

    runs: tuple[RunRecord, ...]

    @property
    def setup(self) -> Setup:
        """The setup of the runs, with the first one's seed."""
        return self.runs[0].setup

    @cached_property
    def settings(self) -> str:
        """A hash that two groups share if they can be compared as methods."""
        return stable_hash(self.setup.model_dump(mode="json", include=set(SETTINGS)))

    @cached_property
    def scores(self) -> dict[str, DatasetRecord]:
        """Benchmarks that every run has scored, as the first run has them."""
        first, *others = map(scored, self.runs)
        return {name: entry for name, entry in first.items() if all(name in other for other in others)}

    @cached_property
    def entries(self) -> list[DatasetRecord]:
        """Scored benchmarks of all runs."""
        return [entry for run in self.runs for entry in scored(run).values()]

    @cached_property
    def keys(self) -> dict[str, tuple[str, ...]]:
        """Benchmark -> key of its scored questions and judge."""
        return {name: _questions(name, entry) for name, entry in self.scores.items()}

    @cached_property
    def questions(self) -> frozenset[tuple[str, ...]]:
        """Keys of the scored questions and judges, one per benchmark: equal in groups that are ranked together."""
        return frozenset(self.keys.values())

    @property
    def label(self) -> str:
        """Model, method, ratio and number of seeds, for notes."""
        setup, seeds = self.setup, len(self.runs)
        ratio = "" if setup.method.kind == "none" else f" {setup.ratio:g}"
        return f"{self.runs[0].model.name} {setup.method.name}{ratio}" + f" ({seeds} seeds)" * (seeds > 1)

    def credit_interval(self, name: str) -> bool:
        """Return whether the interval of this score is that of the mean credit, not of the headline."""
        score = self.scores[name].score
        return score is not None and score.interval_of != "headline"

    def spread(self, names: Iterable[str]) -> float | None:
        """Return the standard deviation over seeds of the mean score on `names`; None for a single run."""
        if len(self.runs) == 1:
            return None
        names = list(names)
        means = [float(np.mean([_score(run, name).value for name in names])) for run in self.runs]
        return stdev(means)


def scored(record: RunRecord) -> dict[str, DatasetRecord]:
    """Return the run's benchmarks that have a score."""
    return {name: entry for name, entry in record.datasets.items() if entry.score is not None}


def groups(records: Iterable[RunRecord]) -> list[SeedGroup]:
    """Group runs that differ in their seed only, in the order of their first appearance.

    A seed that was scored on other questions is no repetition: it begins a group of its own.
    """
    found: dict[str, list[list[RunRecord]]] = defaultdict(list)
    for record in records:
        setup = record.setup.model_dump(mode="json")
        setup["seed"] = setup["method"]["resolved"] = None
        parts = [{**part, "seed": None} for part in record.setup.method.resolved]
        alike = found[stable_hash({**setup, "parts": parts})]
        fitting = (runs for runs in alike if all(_same_questions(record, run) for run in runs))
        runs = next(fitting, None)
        if runs is None:
            alike.append([record])
        else:
            runs.append(record)
    each = [runs for alike in found.values() for runs in alike]
    return [SeedGroup(tuple(sorted(runs, key=lambda run: run.setup.seed))) for runs in each]


def _same_questions(one: RunRecord, other: RunRecord) -> bool:
    """Return whether two runs were scored on the same questions of all benchmarks that both have scored."""
    first, second = scored(one), scored(other)
    both = first.keys() & second.keys()
    return all(_questions(name, first[name]) == _questions(name, second[name]) for name in both)


class RunComparison:
    """Estimates of every group's scores, computed when first used. Runs on the same questions are resampled together.

    Args:
        records: all runs to compare.
        fidelity: compares their stored predictions; without it there are no fidelity estimates.
    """

    def __init__(self, records: Sequence[RunRecord], fidelity: CompareRuns | None = None) -> None:
        self.groups = groups(records)
        unpruned = [group for group in self.groups if group.setup.method.kind == "none"]
        self._baselines = {group.settings: group for group in reversed(unpruned)}  # the first of several
        self._compare_runs = fidelity
        self._scores: dict[tuple[str, ...], dict[str, ScoreRecord]] = defaultdict(dict)
        for record in records:
            for name, entry in record.datasets.items():
                if entry.score is not None:
                    self._scores[_questions(name, entry)][record.identity] = entry.score
        self._estimates: dict[tuple[str, ...], dict[str, Estimate]] = {}
        self._means: dict[tuple[str, ...], Estimate] = {}
        self._fidelities: dict[tuple[str, str], dict[str, FidelityEstimate]] = {}

    def score(self, group: SeedGroup, name: str) -> Estimate:
        """Return a group's score on a benchmark: the mean over its seeds, whose chance is added to the items'."""
        key = (*(run.identity for run in group.runs), name)
        if key not in self._means:
            self._means[key] = over_seeds({run.identity: self._run_score(run, name) for run in group.runs})
        return self._means[key]

    def average(self, group: SeedGroup, names: Iterable[str]) -> Estimate:
        """Return the plain mean of a group's scores over some benchmarks."""
        return mean([self.score(group, name) for name in names])

    def baseline(self, group: SeedGroup) -> SeedGroup | None:
        """Return the un-pruned runs of the same weights, processor, settings and rows, if there are any."""
        return self._baselines.get(group.settings)

    def relative(self, group: SeedGroup, names: Iterable[str]) -> Estimate | None:
        """Return the mean over benchmarks of score / baseline score, in percent.

        A benchmark on which the baseline scores zero is left out. None if any of the benchmarks is not scored, on the
        same questions by the same judge, in both.
        """
        return self.relatives([(group, names)])[0]

    def relatives(self, wanted: Iterable[tuple[SeedGroup, Iterable[str]]]) -> list[Estimate | None]:
        """Return `relative` of each group on some benchmarks, those of one baseline computed together."""
        asked = [(group, list(names)) for group, names in wanted]
        parts: dict[tuple[int, str], list[int]] = defaultdict(list)  # baseline and benchmark -> places
        for i, (group, names) in enumerate(asked):
            baseline = self.baseline(group)
            if baseline is not None and all(comparable(group, baseline, name) for name in names):
                for name in names:
                    parts[id(baseline), name].append(i)
        shares: list[dict[str, Estimate]] = [{} for _ in asked]
        for (_, name), places in parts.items():
            baseline = self.baseline(asked[places[0]][0])
            base = self.score(baseline, name) if baseline else None
            if base is not None and base.value > 0:
                found = ratios([self.score(asked[i][0], name) for i in places], base)
                for i, share in zip(places, found, strict=True):
                    shares[i][name] = share
        each = [[one[name] for name in names if name in one] for (_, names), one in zip(asked, shares, strict=True)]
        return [mean(found) if found else None for found in each]

    def fidelity(self, group: SeedGroup) -> FidelityEstimate | None:
        """Return agreement and first-token KL with the baseline: means over benchmarks, each counting once."""
        baseline = self.baseline(group)
        if baseline is None:
            return None
        names = dict.fromkeys(name for run in group.runs for name in run.datasets)
        each = [self._run_fidelities(baseline, name) for name in names]
        found = [{run.identity: known[run.identity] for run in group.runs if run.identity in known} for known in each]
        found = [runs for runs in found if runs]
        if not found:
            return None
        kls = [{run: one.kl for run, one in runs.items() if one.kl is not None} for runs in found]
        complete = list(map(len, kls)) == list(map(len, found))
        return FidelityEstimate(
            agreement=mean([over_seeds({run: one.agreement for run, one in runs.items()}) for runs in found]),
            kl=mean([over_seeds(runs) for runs in kls]) if complete else None,
        )

    def _run_fidelities(self, baseline: SeedGroup, name: str) -> dict[str, FidelityEstimate]:
        """Map the identity of every run with this baseline to its fidelity on one benchmark."""
        base = baseline.runs[0]
        entry, key = base.datasets.get(name), (base.identity, name)
        if entry is None or self._compare_runs is None:
            return {}
        if key not in self._fidelities:
            runs = [run for group in self.groups if group.settings == baseline.settings for run in group.runs]
            same = [run for run in runs if name in run.datasets and same_rows(run.datasets[name], entry)]
            each = {run.identity: one for run in same if (one := self._compare_runs(base, run, name)) is not None}
            # The clusters of rows are stored with the score.
            found = estimate_fidelity(each, entry.score.clusters if entry.score else None, name)
            if base.identity in found:  # the baseline agrees with itself in every resample
                found[base.identity] = found[base.identity].certain()
            self._fidelities[key] = found
        return self._fidelities[key]

    def _run_score(self, run: RunRecord, name: str) -> Estimate:
        """Return one run's score."""
        questions = _questions(name, run.datasets[name])
        if questions not in self._estimates:
            scores = self._scores[questions]
            self._estimates[questions] = dict(zip(scores, resample(list(scores.values()), name), strict=True))
        # An interval of the mean credit, where the headline does not follow from items, is moved to the headline.
        return self._estimates[questions][run.identity].moved(_score(run, name).value)


def over_seeds(runs: Mapping[str, Estimate]) -> Estimate:
    """Return the mean over the runs of a group, one per seed: the chance of the seeds is added to that of the rows."""
    estimates = list(runs.values())
    if len(estimates) == 1:
        return estimates[0]
    return mean(estimates).over_seeds(" ".join(runs), [one.value for one in estimates])


def comparable(one: SeedGroup, other: SeedGroup, name: str) -> bool:
    """Return whether both groups have a score on the same questions by the same judge and version of the scorer."""
    return name in one.keys and one.keys.get(name) == other.keys.get(name)


def same_machine(one: Setup, other: Setup) -> bool:
    """Return whether two runs have the same model on the same kind of machine, so that their times compare."""
    return all(getattr(one, name) == getattr(other, name) for name in MACHINE)


def same_rows(one: DatasetRecord, other: DatasetRecord) -> bool:
    """Return whether two runs have the same rows with the same prompts, and left out the same."""
    return rows_key(one) == rows_key(other)


def _questions(name: str, entry: DatasetRecord) -> tuple[str, ...]:
    """Return what two runs share if their items are pairs: benchmark, rows, those left out, judge and scorer."""
    scored_by = (entry.score.judge, entry.score.scorer) if entry.score else ("", "")
    return (name, *scored_by, *rows_key(entry))


def rows_key(entry: DatasetRecord) -> tuple[str, ...]:
    """Return the hashes of the rows and of their prompts, and the rows left out."""
    return entry.data, entry.prompts, *sorted(entry.faulty)


def _score(run: RunRecord, name: str) -> ScoreRecord:
    score = run.datasets[name].score
    if score is None:
        raise ValueError(f"run {run.identity} has no score of {name}")
    return score
