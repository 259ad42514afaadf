"""Leaderboards from stored run records: one row per method and setting, one column per benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from uniprune.results.budgets import BudgetGroup, budget_groups, budget_notes, decisions, distinct, visual_tokens
from uniprune.results.comparison import CompareRuns, RunComparison, SeedGroup
from uniprune.results.conditions import condition_cells, condition_notes
from uniprune.results.equal_flops import equal_flops
from uniprune.results.few import few_notes
from uniprune.results.hard_accuracy import HardRows
from uniprune.results.hard_columns import hard_cells, hard_columns, hard_notes
from uniprune.results.left_out import left_out_notes
from uniprune.results.records import RunRecord
from uniprune.results.remarks import all_remarks, row_notes
from uniprune.results.score_cells import AVERAGE, RELATIVE, Cells, score_cells
from uniprune.results.settings import all_settings
from uniprune.results.speedup import net_speedup, untimed
from uniprune.results.statistics import Estimate, standings
from uniprune.results.store import AGAIN
from uniprune.results.table import BudgetCell, CellValue, MarkedCell, ResultTable, ScoreCell

LEAD = ("model", "method", "ratio", "layer", "protocol", "question", "seed", "settings")
TAIL = (
    *("average", "rank", "budget group", "relative %", "agreement %", "first-token KL"),
    *("net speed-up", "net ceiling", "of ceiling %"),
    *("total ms", "batch TTFT ms", "prefill ms", "method ms", "batch", "device"),
    *("visual tokens", "TFLOPs", "KV MB", "rows", "left out", "judge", "remarks", "identity"),
)


@dataclass(frozen=True)
class Leaderboard(ResultTable):
    """The table of groups of runs.

    Attributes:
        comparison: the estimates in it, which `only` uses again.
        groups: those shown.
        doubts: notes on stored files that are left out or in doubt.
        hard: the scores on hard and easy rows.
    """

    comparison: RunComparison = field(kw_only=True, repr=False, compare=False)
    hard: HardRows = field(kw_only=True, repr=False, compare=False)
    groups: Sequence[SeedGroup] = field(kw_only=True, repr=False, compare=False)
    doubts: Sequence[str] = field(default=(), kw_only=True, repr=False, compare=False)

    def only(self, identities: Collection[str | None]) -> Leaderboard:
        """Return the leaderboard of the groups that have one of these runs; nothing is resampled again.

        Averages, ranks and notes are those of the groups shown. All other runs still serve as baselines.

        Args:
            identities: of runs; None, the identity of a planned run that failed, is that of none.
        """
        groups = [group for group in self.comparison.groups if any(run.identity in identities for run in group.runs)]
        return _leaderboard(self.hard, groups, self.doubts)

    def equal_flops(self) -> ResultTable:
        """Return the average scores of the groups shown at equal FLOPs (`uniprune.results.equal_flops`)."""
        return equal_flops(self.groups, self.comparison)


def leaderboard(
    records: Sequence[RunRecord], fidelity: CompareRuns | None = None, doubts: Sequence[str] = ()
) -> Leaderboard:
    """Return the leaderboard of stored runs.

    Runs that differ in their seed only are one row. The average is left out for a run that lacks benchmarks another run
    of its model has: means over different benchmarks must not be compared. "relative %" is the mean of score / baseline
    score over the run's benchmarks; the baseline is the un-pruned run of the same weights, settings, rows and judge.
    Ranks are among the pruned runs of the same model and settings, scored on the same rows, whose measured visual
    tokens per layer agree (`uniprune.results.budgets`): a budget group. Rows of one group are together.

    Args:
        records: the stored runs.
        fidelity: compares stored predictions, for agreement and first-token KL; without it these columns are empty.
        doubts: notes on stored files that are left out or in doubt, from `Store.records` and `FidelityCache`; they end
            the table's notes.
    """
    comparison = RunComparison(records, fidelity)
    return _leaderboard(HardRows(comparison), comparison.groups, doubts)


def _leaderboard(hard: HardRows, groups: Sequence[SeedGroup], doubts: Sequence[str]) -> Leaderboard:
    """Return the table of some groups of a comparison."""
    comparison = hard.comparison
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.datasets))
    names.sort(key=lambda name: (_suite(groups, name), name))
    covered: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        covered[group.setup.weights].update(group.scores)
    parts = budget_groups(groups)
    ranks = _ranks(comparison, parts, covered)
    cells = score_cells(groups, comparison, covered)
    rows = [
        _row(group, comparison, cells[id(group)]) | ranks.get(id(group), {}) | hard_cells(hard, group)
        for group in groups
    ]
    rows.sort(key=_order)
    # after the rows, which may add doubts
    notes = (*_notes(groups, comparison, rows, parts), *hard_notes(hard, groups), *dict.fromkeys(doubts))
    own = hard_columns(hard, groups)
    columns, known = (*LEAD, *names, *TAIL, *own), [name for name in own if name.endswith("known")]
    return Leaderboard(
        columns, rows, notes, names, known, comparison=comparison, hard=hard, groups=groups, doubts=doubts
    )


def _suite(groups: Sequence[SeedGroup], name: str) -> str:
    """Return the suite of a benchmark."""
    return next(run.datasets[name].suite for group in groups for run in group.runs if name in run.datasets)


def _ranks(
    comparison: RunComparison, parts: Sequence[BudgetGroup], covered: Mapping[str, set[str]]
) -> dict[int, dict[str, CellValue]]:
    """Return the id of every pruned group -> its budget group, and its rank in it if it has an average and a rival.

    Groups that must have the same predictions, as of both protocols before layer 0, count once and share a rank.
    """
    cells: dict[int, dict[str, CellValue]] = {}
    for number, part in enumerate(sorted(parts, key=_place), 1):
        if part.low is None or part.high is None:
            continue
        first, rivals, ranks = part.members[0], distinct(part.members), {}
        if len(rivals) > 1 and covered[first.setup.weights] == set(first.scores):
            intervals = standings([comparison.average(group, group.scores) for group in rivals])
            ranks = dict(zip(map(decisions, rivals), intervals, strict=True))
        budget = BudgetCell(number, part.low, part.high)
        cells |= {id(group): {"rank": ranks.get(decisions(group)), "budget group": budget} for group in part.members}
    return cells


def _place(part: BudgetGroup) -> tuple[object, ...]:
    """Return a key that numbers budget groups: model by model, the largest budgets first, those without one last."""
    first = min(part.members, key=lambda group: group.runs[0].identity)
    high = float("-inf") if part.high is None else part.high
    return first.runs[0].model.name, -high, all_settings(first), first.runs[0].identity


def _order(row: Mapping[str, CellValue]) -> tuple[object, ...]:
    """Return a key that keeps budget groups together, after the un-pruned model and before what is in none."""
    group = row.get("budget group")
    number = group.number if isinstance(group, BudgetCell) else 0 if row["protocol"] is None else float("inf")
    return str(row["model"]), number, -_number(row["ratio"]), str(row["method"]), str(row["seed"])


def _row(group: SeedGroup, comparison: RunComparison, cells: Cells) -> dict[str, CellValue]:
    """Return the values of one group with the cells of its scores, but for its rank."""
    setup, entries, scores = group.setup, group.entries, group.scores
    ledgers = [(entry.ledger, entry.answered) for entry in entries if entry.ledger]
    mark = "!" * any(one.flagged for one, _ in ledgers) + "~" * any(one.adaptive for one, _ in ledgers)
    tokens = visual_tokens(group)
    fidelity = comparison.fidelity(group)
    row: dict[str, CellValue] = {
        "model": group.runs[0].model.name,
        "method": setup.method.name,
        "ratio": setup.ratio,
        "layer": _layers(list(dict.fromkeys(layer for layer, _ in setup.method.stages))),
        "protocol": None if setup.method.kind == "none" else setup.protocol,
        "question": setup.question,
        "seed": setup.seed if len(group.runs) == 1 else f"{len(group.runs)} seeds",
        "settings": all_settings(group),
        AVERAGE: None,
        RELATIVE: None,
        **cells,
        "rank": None,
        "agreement %": _cell(fidelity.agreement) if fidelity else None,
        "first-token KL": _kl_cell(fidelity.kl) if fidelity and fidelity.kl else None,
        "visual tokens": None if tokens is None else MarkedCell(tokens, mark),
        "TFLOPs": _all((one.flops.total / 1e12 if one.flops else None, weight) for one, weight in ledgers),
        "KV MB": _all((None if one.kv_bytes is None else one.kv_bytes / 1e6, weight) for one, weight in ledgers),
        **condition_cells(group),
        "left out": sum(len(entry.faulty) for entry in scores.values()),
        "judge": ", ".join(sorted({entry.score.judge for entry in entries if entry.score})) or None,
        "remarks": all_remarks(
            {name: [run.datasets[name] for run in group.runs] for name in scores}, (run.model for run in group.runs)
        ),
        "identity": " ".join(run.identity for run in group.runs),
    }
    net = net_speedup(group, comparison.baseline(group))
    row |= {"net speed-up": net and net.value, "net ceiling": net and net.ceiling, "of ceiling %": net and net.share}
    timings = [entry.timing for entry in entries if entry.timing]
    for span in ("total", "prefill", "method"):
        row[f"{span} ms"] = _mean((getattr(one, span).median, one.rows) for one in timings)
    row["batch TTFT ms"] = _all((one.ttft.median if one.ttft else None, one.rows) for one in timings)
    return row


def _cell(estimate: Estimate) -> ScoreCell:
    """Return the cell of an estimate."""
    return ScoreCell(estimate.value, estimate.interval())


def _kl_cell(estimate: Estimate) -> ScoreCell:
    """Return the cell of a divergence, which has no natural scale."""
    return ScoreCell(estimate.value, estimate.interval(), form=".3g")


def _layers(layers: list[int]) -> str | None:
    """Return pruning layers as text: "0", "0+2", or "1…5" for more than three."""
    return (f"{layers[0]}…{layers[-1]}" if len(layers) > 3 else "+".join(map(str, layers))) or None


def _mean(values: Iterable[tuple[float, int]]) -> float | None:
    """Return the weighted mean, None without any weight."""
    pairs = [(value, weight) for value, weight in values if weight]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None


def _all(values: Iterable[tuple[float | None, int]]) -> float | None:
    """Return the weighted mean of values that are all known, else None: not every run measures all."""
    pairs = list(values)
    known = [(value, weight) for value, weight in pairs if value is not None]
    return _mean(known) if len(known) == len(pairs) else None


def _number(value: CellValue) -> float:
    """Return a ratio to sort by."""
    return float(value) if isinstance(value, float | int) else 0.0


def _notes(
    groups: Sequence[SeedGroup],
    comparison: RunComparison,
    rows: Sequence[dict[str, CellValue]],
    parts: Sequence[BudgetGroup],
) -> tuple[str, ...]:
    """Return the remarks that a reader of this table needs."""
    notes = []
    if any(isinstance(cell, ScoreCell) and cell.interval for row in rows for cell in row.values()):
        notes.append("[low, high]: 95 % bootstrap interval over images and seeds; docs/statistics.md explains it.")
    if any(row["rank"] for row in rows):
        notes.append(
            "rank [best–worst that paired tests leave possible] within one budget group: methods of one model whose "
            "measured visual tokens per layer agree; = not significantly worse than the first (5 %, Holm-corrected)."
        )
    notes += budget_notes(parts)
    notes = condition_notes(groups, rows) + notes + few_notes(groups, comparison)
    if any(len(group.runs) > 1 for group in groups):
        notes.append("±: standard deviation over seeds.")
    if odd := sorted({name for group in groups for name in group.scores if group.credit_interval(name)}):
        notes.append(f"The interval is that of the mean credit per item, not of the headline, for {', '.join(odd)}.")
    marks = {mark for row in rows if isinstance(cell := row["visual tokens"], MarkedCell) for mark in cell.mark}
    if "!" in marks:
        notes.append("! the measured visual tokens are off the requested budget by more than one token in some row.")
    if "~" in marks:
        notes.append("~ the method chooses its own number of tokens: its ratio is nominal, this is what it kept.")
    if any(row["average"] is None for row in rows):
        notes.append("No average: the run lacks a benchmark that another run of the same model has.")
    if any(row["net speed-up"] for row in rows):
        notes.append(
            "net speed-up: un-pruned prefill / (prefill + method); net ceiling: what FLOPs alone allow. Where the "
            "vision tower had less to do, too, both include tower and projector."
        )
    notes += [note for group in groups if (note := untimed(group, comparison.baseline(group)))]
    records = [run for group in groups for run in group.runs]
    notes += dict.fromkeys(
        f"{record.setup.method.spelled_out} is known as {' and '.join(record.known_as)}: one run, whichever is named."
        for record in records
        if record.known_as
    )
    notes += left_out_notes(groups)
    baselines = [one for group in groups if (one := comparison.baseline(group)) is not None]
    behind = {run.identity: run for group in (*groups, *baselines) for run in group.runs}
    notes += row_notes((run, name) for run in behind.values() for name in run.datasets)
    notes += dict.fromkeys(record.model.unused for record in records if record.model.unused)
    for record in records:
        for name, entry in record.datasets.items():
            if entry.unscorable:
                reasons = f"{name}.record.json"
                notes.append(f"{record.identity} {name}: no score, all {entry.rows} rows are left out ({reasons}).")
            elif entry.score is None:
                notes.append(
                    f"{record.identity} {name}: {entry.answered} of {entry.rows} rows answered, not scored yet: "
                    f"{AGAIN.format(name)}scores them."
                )
    return tuple(notes)
