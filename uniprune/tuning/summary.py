"""Tables of finished runs: accuracy over seeds, time per span, quadrants of each kind of sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from scipy import stats

from uniprune.tuning.run import TuningRecord
from uniprune.tuning.step_log import StepLine, StepLog
from uniprune.utils.tables import to_csv

QUADRANTS = ("between", "Q1", "Q2", "Q3", "Q4")
SELECTION = ("score", "samples", "tokens")


@dataclass(frozen=True)
class FinishedRun:
    """A stored run.

    Attributes:
        record: settings and results.
        step_log: its steps.
        tasks: metrics of the tuned model on tasks of lm-evaluation-harness.
    """

    record: TuningRecord
    step_log: StepLog
    tasks: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def accuracy(self, kind: str = "") -> float:
        """Return exact matches of a kind in percent."""
        score = self.record.after[kind]
        return 100 * score.right / score.items

    def seconds(self, *names: str) -> float:
        """Return the sum of some spans over all steps."""
        return sum(line.seconds.get(name, 0.0) for line in self.step_log.steps for name in names)

    def share(self, part: str, whole: str) -> float:
        """Return one token count of `StepLine` in percent of another, over all steps."""
        tokens, total = (sum(int(getattr(line, name)) for line in self.step_log.steps) for name in (part, whole))
        return 100 * tokens / max(1, total)


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds.

    Attributes:
        value: the mean.
        half: half the width of its 95 % t interval; None for a single seed.
    """

    value: float
    half: float | None

    def __str__(self) -> str:
        return f"{self.value:.1f}" + ("" if self.half is None else f" ± {self.half:.1f}")


def seed_mean(values: Sequence[float]) -> SeedMean:
    """Return the mean over seeds with its interval."""
    if len(values) < 2:
        return SeedMean(fmean(values), None)
    return SeedMean(fmean(values), float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5)


@dataclass(frozen=True)
class SummaryTable:
    """A table of text.

    Attributes:
        columns: column names.
        rows: cells of each row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def csv(self) -> str:
        """Return the table as comma-separated values."""
        return to_csv(self.columns, self.rows)


def by_pair(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Group runs by the label of their pair, in the order of the file."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.record.label, []).append(run)
    return groups


def kinds(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the kinds of the held-out samples; the first, "", covers all."""
    return sorted({kind for run in runs for kind in run.record.after})


def accuracy_table(runs: Sequence[FinishedRun]) -> SummaryTable:
    """Tabulate exact match per pair and kind, tokens right, and the share of the data trained on; best pair first."""
    names = kinds(runs)
    columns = ["pair", "role", "seeds", *(f"exact {name or 'all'} %" for name in names), "tokens right %",
               "samples kept %", "answer tokens trained %"]  # fmt: skip
    rows: list[tuple[float, list[str]]] = []
    if runs and names:
        first = runs[0].record.before
        cells = [f"{100 * first[n].right / first[n].items:.1f}" for n in names]
        rows.append((-1.0, ["(before tuning)", "", "", *cells, f"{100 * first[''].tokens:.1f}", "", ""]))
    for label, group in by_pair(runs).items():
        exact = [str(seed_mean([run.accuracy(name) for run in group])) for name in names]
        right = str(seed_mean([100 * run.record.after[""].tokens for run in group])) if names else "–"
        kept = seed_mean([_kept(run.step_log.steps) for run in group])
        trained = seed_mean([run.share("trained", "answers") for run in group])
        order = fmean(run.accuracy() for run in group) if names else 0.0
        rows.append((order, [label, group[0].record.choice.role, str(len(group)), *exact, right,
                             f"{kept.value:.1f}", f"{trained.value:.1f}"]))  # fmt: skip
    return SummaryTable(columns, [row for _, row in sorted(rows, key=lambda pair: -pair[0])])


def task_table(runs: Sequence[FinishedRun], base: Mapping[str, Mapping[str, float | None]]) -> SummaryTable:
    """Tabulate the first metric of every harness task per pair, and their mean, in percent.

    The base model's row is "zero-shot". A dash means that the harness gave no finite value for some seed.
    """
    names = list(base)
    columns = ["pair", *(f"{name} ({next(iter(metrics), 'no metric')})" for name, metrics in base.items()), "average"]

    def row(label: str, scored: Sequence[Mapping[str, Mapping[str, float | None]]]) -> list[str]:
        values = [[next(iter(scores[name].values()), None) for scores in scored] for name in names]
        known = [[100 * value for value in column if value is not None] for column in values]
        means = [str(seed_mean(column)) if len(column) == len(scored) else "–" for column in known]
        averages = [fmean(seed) for seed in zip(*known, strict=True)] if "–" not in means else []
        return [label, *means, str(seed_mean(averages)) if averages else "–"]

    return SummaryTable(
        columns, [row("zero-shot", [base]), *(row(k, [r.tasks for r in g]) for k, g in by_pair(runs).items())]
    )


def _kept(steps: Sequence[StepLine]) -> float:
    batches = [batch for line in steps for batch in line.batches]
    return 100 * sum(len(b.kept) for b in batches) / max(1, sum(len(b.index) for b in batches))


def time_table(runs: Sequence[FinishedRun]) -> SummaryTable:
    """Tabulate selection, training, total and peak memory as means over seeds, like Table 6 of the paper."""
    columns = ("pair", "scoring s", "samples s", "tokens s", "training s", "total s", "selection %", "of full %",
               "tokens run %", "peak GPU memory MB")  # fmt: skip
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


def quadrant_table(runs: Sequence[FinishedRun], kind_of: Mapping[int, str]) -> SummaryTable | None:
    """Tabulate the quadrants of each kind of sample, in percent of its appearances, and how often it was kept.

    None if no plane was measured or the data has no kinds.
    """
    seen: dict[str, Counter[int]] = {}
    kept: Counter[str] = Counter()
    for run in runs:
        batches = (batch for line in run.step_log.steps for batch in line.batches)
        for batch, quadrants in ((batch, batch.quadrant) for batch in batches if batch.quadrant is not None):
            for place, (index, quadrant) in enumerate(zip(batch.index, quadrants, strict=True)):
                kind = kind_of.get(index, "")
                seen.setdefault(kind, Counter())[quadrant] += 1
                kept[kind] += place in batch.kept
    if not any(seen):
        return None
    rows = []
    for kind, counts in sorted(seen.items()):
        total = counts.total()
        cells = [f"{100 * counts[q] / total:.1f}" for q in (1, 2, 3, 4, 0)]
        rows.append([kind, str(total), *cells, f"{100 * kept[kind] / total:.1f}"])
    return SummaryTable(("kind", "seen", "Q1 %", "Q2 %", "Q3 %", "Q4 %", "between %", "kept %"), rows)


def kept_table(runs: Sequence[FinishedRun]) -> SummaryTable | None:
    """Tabulate the quadrants that the kept samples of every pair come from, in percent; None if none was measured."""
    rows = []
    for label, group in by_pair(runs).items():
        batches = [batch for run in group for line in run.step_log.steps for batch in line.batches]
        counts = Counter(batch.quadrant[place] for batch in batches if batch.quadrant for place in batch.kept)
        if total := counts.total():
            rows.append([label, str(total), *(f"{100 * counts[q] / total:.1f}" for q in (1, 2, 3, 4, 0))])
    columns = ("pair", "samples kept", "from Q1 %", "Q2 %", "Q3 %", "Q4 %", "between %")
    return SummaryTable(columns, rows) if rows else None


def compare_method(runs: Sequence[FinishedRun]) -> list[str]:
    """Compare the method with every other pair, seed by seed, in one sentence each."""
    groups = by_pair(runs)
    roles = {label: group[0].record.choice.role for label, group in groups.items()}
    methods = [label for label, role in roles.items() if role == "method"]
    if not methods or not kinds(runs):
        return []
    baselines = [label for label, role in roles.items() if role == "baseline"]
    best = max(baselines, key=lambda label: fmean(run.accuracy() for run in groups[label]), default=None)
    lines = []
    for label, group in groups.items():
        other = {run.record.seed: run.accuracy() for run in group if label != methods[0]}
        gaps = [run.accuracy() - other[run.record.seed] for run in groups[methods[0]] if run.record.seed in other]
        if gaps:
            gap = seed_mean(gaps)
            significant = gap.half is not None and abs(gap.value) > gap.half
            result = ("better" if gap.value > 0 else "worse") if significant else "not significant"
            name = f"{label} (best baseline pair)" if label == best else label
            lines.append(f"{methods[0]} minus {name}: {gap.value:+.1f}"
                         f"{'' if gap.half is None else f' ± {gap.half:.1f}'} points, {result}")  # fmt: skip
    return lines


def count_problems(runs: Sequence[FinishedRun]) -> list[str]:
    """Count void steps, batches too small for their ratio, and numbers that do not exist, one line each."""
    void = sum(line.loss is None for run in runs for line in run.step_log.steps)
    short = sum(batch.short for run in runs for line in run.step_log.steps for batch in line.batches)
    lines = []
    if void:
        lines.append(f"{void} optimizer steps were void: their loss was not finite")
    if short:
        lines.append(f"{short} batches were smaller than their ratio needs; one sample of each was kept nevertheless")
    unknown = sum(None in pair for run in runs for pair in _measured(run))
    if unknown:
        lines.append(
            f"{unknown} measurements of samples had no finite perplexity or entropy: they count as the largest of "
            "their batch and are left out of the figures"
        )
    absent = {f"{name}: {metric}" for run in runs for name, scores in run.tasks.items()
              for metric, value in scores.items() if value is None}  # fmt: skip
    return lines + [f"the harness gave no finite value for {name}" for name in sorted(absent)]


def _measured(run: FinishedRun) -> Iterator[tuple[float | None, float | None]]:
    """Yield perplexity and entropy of every measurement of a sample."""
    batches = [batch for line in run.step_log.steps for batch in line.batches]
    for one in batches:
        yield from zip(one.perplexity or (), one.entropy or (), strict=True)
    for probe in run.step_log.probes:
        yield from zip(probe.perplexity, probe.entropy, strict=True)
