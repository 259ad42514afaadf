"""Tables of finished runs: accuracy over seeds, where the time went, which quadrant caught which kind of item."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from scipy import stats

from uniprune.tuning.journal import StepLine, StepLog
from uniprune.tuning.run import TuningRecord

QUADRANTS = ("between", "Q1", "Q2", "Q3", "Q4")
SELECTION = ("score", "samples", "tokens")


@dataclass(frozen=True)
class Finished:
    """A stored run: its record, its journal, and its model's metrics on tasks of lm-evaluation-harness."""

    record: TuningRecord
    journal: StepLog
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def accuracy(self, kind: str = "") -> float:
        """Exact matches in percent."""
        score = self.record.after[kind]
        return 100 * score.right / score.items

    def seconds(self, *names: str) -> float:
        """Sum of spans over all steps."""
        return sum(line.seconds.get(name, 0.0) for line in self.journal.steps for name in names)

    def share(self, part: str, whole: str) -> float:
        """Tokens of one sort in percent of another's, over all steps."""
        total = sum(getattr(line, whole) for line in self.journal.steps)
        return 100 * sum(getattr(line, part) for line in self.journal.steps) / max(1, total)


@dataclass(frozen=True)
class SeedMean:
    """Mean over seeds with a 95 % t interval; None where there is one seed only."""

    value: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.value:.1f}" + ("" if self.half is None else f" ± {self.half:.1f}")


def mean(values: Sequence[float]) -> SeedMean:
    """Mean and half width of its interval."""
    if len(values) < 2:
        return SeedMean(fmean(values), None)
    return SeedMean(fmean(values), float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5)


@dataclass(frozen=True)
class SummaryTable:
    """Column names and rows of text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def csv(self) -> str:
        """Comma-separated values."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.columns, *self.rows])
        return file.getvalue()


def by_pair(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """Runs of each pair, in the order of the file."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(run.record.label, []).append(run)
    return groups


def kinds(runs: Sequence[Finished]) -> list[str]:
    """Kinds of the held-out items, all of them first."""
    return sorted({kind for run in runs for kind in run.record.after})


def accuracy_table(runs: Sequence[Finished]) -> SummaryTable:
    """Exact match per pair and kind, tokens right, and how much of the data was trained on; best pair first."""
    names = kinds(runs)
    columns = ["pair", "role", "seeds", *(f"exact {name or 'all'} %" for name in names), "tokens right %",
               "samples kept %", "answer tokens trained %"]  # fmt: skip
    rows: list[tuple[float, list[str]]] = []
    if runs and names:
        first = runs[0].record.before
        cells = [f"{100 * first[n].right / first[n].items:.1f}" for n in names]
        rows.append((-1.0, ["(before tuning)", "", "", *cells, f"{100 * first[''].tokens:.1f}", "", ""]))
    for label, group in by_pair(runs).items():
        exact = [str(mean([run.accuracy(name) for run in group])) for name in names]
        right = str(mean([100 * run.record.after[""].tokens for run in group])) if names else "–"
        kept = mean([_kept(run.journal.steps) for run in group])
        trained = mean([run.share("trained", "answers") for run in group])
        order = fmean(run.accuracy() for run in group) if names else 0.0
        rows.append((order, [label, group[0].record.choice.role, str(len(group)), *exact, right,
                             f"{kept.value:.1f}", f"{trained.value:.1f}"]))  # fmt: skip
    return SummaryTable(columns, [row for _, row in sorted(rows, key=lambda pair: -pair[0])])


def task_table(runs: Sequence[Finished], base: Mapping[str, Mapping[str, float]]) -> SummaryTable:
    """The first metric of every harness task per pair, and their mean, in percent; the base model is "zero-shot"."""
    names = list(base)
    columns = ["pair", *(f"{name} ({next(iter(metrics), 'no metric')})" for name, metrics in base.items()), "average"]

    def row(label: str, scored: Sequence[Mapping[str, Mapping[str, float]]]) -> list[str]:
        values = [[100 * next(iter(one[name].values()), float("nan")) for name in names] for one in scored]
        cells = [*(str(mean(column)) for column in zip(*values, strict=True)), str(mean([fmean(v) for v in values]))]
        return [label, *cells]

    return SummaryTable(
        columns, [row("zero-shot", [base]), *(row(k, [r.tasks for r in g]) for k, g in by_pair(runs).items())]
    )


def _kept(steps: Sequence[StepLine]) -> float:
    batches = [batch for line in steps for batch in line.batches]
    return 100 * sum(len(b.kept) for b in batches) / max(1, sum(len(b.index) for b in batches))


def time_table(runs: Sequence[Finished]) -> SummaryTable:
    """Table 6 of the paper: selection, training, total, peak memory; means over seeds."""
    columns = ("pair", "scoring s", "samples s", "tokens s", "training s", "total s", "selection %", "of full %",
               "tokens run %", "peak memory MB")  # fmt: skip
    groups = by_pair(runs)
    whole = [run.seconds("step") for group in groups.values() for run in group if run.record.choice.role == "whole"]
    rows = []
    for label, group in groups.items():
        spans = [fmean(run.seconds(name) for run in group) for name in (*SELECTION, "train", "step")]
        selection = 100 * sum(spans[:3]) / max(spans[-1], 1e-9)
        memory = [run.record.memory for run in group if run.record.memory is not None]
        rows.append([label, *(f"{s:.2f}" for s in spans), f"{selection:.0f}",
                     f"{100 * spans[-1] / fmean(whole):.0f}" if whole else "–",
                     f"{fmean(run.share('run', 'tokens') for run in group):.1f}",
                     f"{fmean(memory) / 2**20:.1f}" if memory else "–"])  # fmt: skip
    return SummaryTable(columns, rows)


def quadrant_table(runs: Sequence[Finished], kind_of: Mapping[int, str]) -> SummaryTable | None:
    """Where the items of each kind fell, in percent of their appearances, and how often they were kept.

    None where no plane was measured or the data has no kinds.
    """
    fell: dict[str, Counter[int]] = {}
    kept: Counter[str] = Counter()
    for run in runs:
        for batch in (b for line in run.journal.steps for b in line.batches if b.quadrant is not None):
            for place, index in enumerate(batch.index):
                kind = kind_of.get(index, "")
                fell.setdefault(kind, Counter())[batch.quadrant[place]] += 1  # type: ignore[index]
                kept[kind] += place in batch.kept
    if not any(fell):
        return None
    rows = []
    for kind, counts in sorted(fell.items()):
        total = counts.total()
        cells = [f"{100 * counts[q] / total:.1f}" for q in (1, 2, 3, 4, 0)]
        rows.append([kind, str(total), *cells, f"{100 * kept[kind] / total:.1f}"])
    return SummaryTable(("kind", "seen", "Q1 %", "Q2 %", "Q3 %", "Q4 %", "between %", "kept %"), rows)


def verdict(runs: Sequence[Finished]) -> list[str]:
    """The method against every other pair, seed by seed, in one sentence each."""
    groups = by_pair(runs)
    of = {label: group[0].record.choice.role for label, group in groups.items()}
    methods = [label for label, role in of.items() if role == "method"]
    if not methods or not kinds(runs):
        return []
    ours = groups[methods[0]]
    baselines = [label for label, role in of.items() if role == "baseline"]
    best = max(baselines, key=lambda label: fmean(run.accuracy() for run in groups[label]), default=None)
    others = [label for label in groups if label != methods[0]]
    lines = []
    for label in others:
        theirs = {run.record.seed: run for run in groups[label]}
        gaps = [run.accuracy() - theirs[run.record.seed].accuracy() for run in ours if run.record.seed in theirs]
        if gaps:
            gap = mean(gaps)
            clear = (
                "not told apart"
                if gap.half is None or abs(gap.value) <= gap.half
                else "better"
                if gap.value > 0
                else "worse"
            )
            name = f"{label} (best baseline pair)" if label == best else label
            lines.append(f"{methods[0]} minus {name}: {gap.value:+.1f}"
                         f"{'' if gap.half is None else f' ± {gap.half:.1f}'} points, {clear}")  # fmt: skip
    return lines


def counts(runs: Sequence[Finished]) -> list[str]:
    """What went wrong inside the runs, one line per sort."""
    void = sum(line.loss is None for run in runs for line in run.journal.steps)
    short = sum(batch.short for run in runs for line in run.journal.steps for batch in line.batches)
    lines = []
    if void:
        lines.append(f"{void} optimizer steps were void: their loss was not finite")
    if short:
        lines.append(f"{short} batches were smaller than their ratio needs; one sample of each was kept nevertheless")
    return lines
