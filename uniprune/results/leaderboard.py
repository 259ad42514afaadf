"""Leaderboards from stored run records: one row per method and setting, one column per benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from uniprune.results.table import CellValue, Leaderboard, MarkedCell, ScoreCell
from uniprune.results.comparison import Compare, SeedGroup, RunComparison
from uniprune.results.records import RunRecord
from uniprune.results.statistics import Estimate, RankInterval, standings

LEAD = ("model", "method", "ratio", "layer", "protocol", "seed", "settings")
TAIL = (
    *("average", "rank", "relative %", "agreement %", "first-token KL"),
    *("total ms", "TTFT ms", "prefill ms", "method ms"),
    *("visual tokens", "TFLOPs", "KV MB", "rows", "judge", "identity"),
)


def leaderboard(
    records: Sequence[RunRecord],
    shown: Callable[[RunRecord], bool] = lambda _: True,
    likeness: Compare | None = None,
) -> Leaderboard:
    """The table of the given runs; those not `shown` still serve as vanilla references.

    Runs that differ in their seed only are one row. The average is left out for a run that lacks benchmarks another run
    of its model has: means over different benchmarks must not be compared. "relative %" is the mean of score / vanilla
    score over the run's benchmarks, against the un-pruned run of the same weights, settings, rows and judge. Ranks are
    among the pruned runs shown of the same model, settings, ratio and protocol. `likeness` compares stored
    answers, for agreement and first-token KL.
    """
    panel = RunComparison(records, likeness)
    kept = [group for group in panel.groups if any(shown(run) for run in group.runs)]
    names = list(dict.fromkeys(name for group in kept for run in group.runs for name in run.datasets))
    names.sort(key=lambda name: (_suite(kept, name), name))
    covered: dict[str, set[str]] = defaultdict(set)
    for group in kept:
        covered[group.setup.weights].update(group.scores)
    ranks = _ranks(panel, [group for group in kept if covered[group.setup.weights] == set(group.scores)])
    rows = [_row(group, panel, covered[group.setup.weights], ranks.get(id(group))) for group in kept]
    rows.sort(key=lambda row: (str(row["model"]), -_number(row["ratio"]), str(row["method"]), str(row["seed"])))
    return Leaderboard((*LEAD, *names, *TAIL), rows, _notes(kept, rows), names)


def _suite(kept: Sequence[SeedGroup], name: str) -> str:
    """The suite of a benchmark."""
    return next(run.datasets[name].suite for group in kept for run in group.runs if name in run.datasets)


def _ranks(panel: RunComparison, complete: Sequence[SeedGroup]) -> dict[int, RankInterval]:
    """Place of every pruned group (by object) among those of the same settings, ratio and protocol."""
    fields: dict[tuple[object, ...], list[SeedGroup]] = defaultdict(list)
    for group in complete:
        if group.scores and group.setup.method.kind != "none":
            fields[group.settings, group.setup.ratio, group.setup.protocol].append(group)
    ranks: dict[int, RankInterval] = {}
    for rivals in fields.values():
        places = standings([panel.average(group, group.scores) for group in rivals])
        ranks |= {id(group): place for group, place in zip(rivals, places, strict=True)}
    return ranks


def _row(group: SeedGroup, panel: RunComparison, covered: set[str], rank: RankInterval | None) -> dict[str, CellValue]:
    """One group's values."""
    setup, entries, scores = group.setup, group.entries, group.scores
    complete = bool(scores) and covered == set(scores)
    ledgers = [(entry.ledger, entry.answered) for entry in entries if entry.ledger]
    mark = "!" * any(one.flagged for one, _ in ledgers) + "~" * any(one.adaptive for one, _ in ledgers)
    tokens = _mean((one.average, weight) for one, weight in ledgers)
    close = panel.closeness(group)
    row: dict[str, CellValue] = {
        "model": group.runs[0].model.name,
        "method": setup.method.name,
        "ratio": setup.ratio,
        "layer": _layers([layer for layer, _ in setup.method.stages]),
        "protocol": None if setup.method.kind == "none" else setup.protocol,
        "seed": setup.seed if len(group.runs) == 1 else f"{len(group.runs)} seeds",
        "settings": _settings(group),
        **{name: _measured(panel.score(group, name), group.spread([name])) for name in scores},
        "average": _measured(panel.average(group, scores), group.spread(scores)) if complete else None,
        "rank": rank,
        "relative %": _measured(panel.relative(group, scores)) if scores else None,
        "agreement %": _measured(close.agreement) if close else None,
        "first-token KL": ScoreCell(close.kl.value, close.kl.interval(), form=".3g") if close and close.kl else None,
        "visual tokens": None if tokens is None else MarkedCell(tokens, mark),
        "TFLOPs": _all((one.flops.total / 1e12 if one.flops else None, weight) for one, weight in ledgers),
        "KV MB": _all((None if one.kv_bytes is None else one.kv_bytes / 1e6, weight) for one, weight in ledgers),
        "rows": sum(entry.score.rows for entry in scores.values() if entry.score),
        "judge": ", ".join(sorted({entry.score.judge for entry in entries if entry.score})) or None,
        "identity": " ".join(run.identity for run in group.runs),
    }
    timings = [entry.timing for entry in entries if entry.timing]
    for span in ("total", "prefill", "method"):
        row[f"{span} ms"] = _mean((getattr(one, span).median, one.rows) for one in timings)
    row["TTFT ms"] = _all((one.ttft.median if one.ttft else None, one.rows) for one in timings)
    return row


def _measured(estimate: Estimate | None, spread: float | None = None) -> ScoreCell | None:
    """An estimate as a cell."""
    return ScoreCell(estimate.value, estimate.interval(), spread) if estimate else None


def _layers(layers: list[int]) -> str | None:
    """Pruning points as text: "0", "0+2", or "1…5" where there are many."""
    return (f"{layers[0]}…{layers[-1]}" if len(layers) > 3 else "+".join(map(str, layers))) or None


def _settings(group: SeedGroup) -> str:
    """What else tells runs apart: fields the user set, prompts, row limit, answer length, precision, kernel, device."""
    setup = group.setup
    passed = [f"{name}={value}" for name, value in setup.method.passed.items() if not name.endswith(".layer")]
    prompts = [f"prompts={setup.prompts}"] * (setup.prompts != "benchmark")
    limits = [f"limit={setup.limit}"] * (setup.limit is not None)
    limits += [f"max-new-tokens={setup.max_new_tokens}"] * (setup.max_new_tokens is not None)
    return " ".join([*passed, *prompts, *limits, setup.dtype, setup.attention, setup.device])


def _mean(values: Iterable[tuple[float, int]]) -> float | None:
    """Weighted mean; None of nothing."""
    pairs = [(value, weight) for value, weight in values if weight]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else None


def _all(values: Iterable[tuple[float | None, int]]) -> float | None:
    """Weighted mean of values that are all known, else None: records of older versions lack some."""
    pairs = list(values)
    known = [(value, weight) for value, weight in pairs if value is not None]
    return _mean(known) if len(known) == len(pairs) else None


def _number(value: CellValue) -> float:
    """A ratio to sort by."""
    return float(value) if isinstance(value, float | int) else 0.0


def _notes(kept: Sequence[SeedGroup], rows: Sequence[dict[str, CellValue]]) -> tuple[str, ...]:
    """What a reader must know about this table."""
    notes = []
    if any(isinstance(row["average"], ScoreCell) for row in rows):
        notes.append(
            "[low, high]: 95 % bootstrap interval over pictures and seeds. docs/statistics.md says what it is."
        )
    if any(row["rank"] for row in rows):
        notes.append(
            "rank [best–worst that paired tests leave possible] among methods of one model, ratio and protocol; "
            "= not significantly worse than the first (5 %, Holm-corrected)."
        )
    if any(len(group.runs) > 1 for group in kept):
        notes.append("±: standard deviation over seeds.")
    scores = {name: entry.score for group in kept for name, entry in group.scores.items() if entry.score}
    if odd := sorted(name for name, score in scores.items() if score.interval_of != "headline"):
        notes.append(f"The interval is that of the mean credit per item, not of the headline, for {', '.join(odd)}.")
    marks = {mark for row in rows if isinstance(cell := row["visual tokens"], MarkedCell) for mark in cell.mark}
    if "!" in marks:
        notes.append("! the measured visual tokens are off the requested budget by more than one token in some row.")
    if "~" in marks:
        notes.append("~ the method chooses its own number of tokens: its ratio is nominal, this is what it kept.")
    if any(row["average"] is None for row in rows):
        notes.append("No average: the run lacks a benchmark that another run of the same model has.")
    records = [run for group in kept for run in group.runs]
    if faulty := {(name, row) for r in records for name, entry in r.datasets.items() for row in entry.faulty}:
        notes.append(f"{len(faulty)} rows could not be asked (damaged images, …); record.json of each run names them.")
    open_ = [(r, n, e) for r in records for n, e in r.datasets.items() if e.score is None]
    for record, name, entry in open_:
        notes.append(f"{record.identity} {name}: {entry.answered} of {entry.rows} rows answered, not scored yet.")
    return tuple(notes)
