"""Leaderboards from stored run records: one row per run, one column per benchmark."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from uniprune.records import DatasetRecord, RunRecord

Cell = str | float | int | None

LEAD = ("model", "method", "ratio", "layer", "protocol", "seed", "settings")
TAIL = (
    *("average", "relative %", "total ms", "TTFT ms", "prefill ms", "method ms"),
    *("visual tokens", "TFLOPs", "KV MB", "rows", "judge", "identity"),
)


@dataclass(frozen=True)
class Leaderboard:
    """A table ready to be written.

    Attributes:
        columns: names in order; the benchmarks lie between "settings" and "average".
        rows: column -> value. notes: what a reader must know, one sentence each.
    """

    columns: Sequence[str]
    rows: Sequence[dict[str, Cell]]
    notes: Sequence[str] = field(default_factory=tuple)

    def texts(self) -> list[list[str]]:
        """The rows as readable text, numbers rounded."""
        return [[text(column, row.get(column)) for column in self.columns] for row in self.rows]

    def csv(self) -> str:
        """Comma-separated values, numbers unrounded."""
        file = io.StringIO()
        writer = csv.DictWriter(file, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()

    def markdown(self) -> str:
        """A GitHub table."""
        lines = [self.columns, ["---"] * len(self.columns), *self.texts()]
        table = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
        return table + "".join(f"\n{note}\n" for note in self.notes)

    def html(self) -> str:
        """A page of its own."""

        def line(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

        body = line(self.columns, "th") + "".join(line(cells, "td") for cells in self.texts())
        notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in self.notes)
        return _PAGE.format(table=body, notes=notes)


def leaderboard(records: Sequence[RunRecord], shown: Callable[[RunRecord], bool] = lambda _: True) -> Leaderboard:
    """The table of the given runs; those not `shown` still serve as vanilla references.

    The average is left out for a run that lacks benchmarks another run of its model has: means over different
    benchmarks must not be compared. "relative %" is the mean of score / vanilla score over the run's benchmarks,
    against the un-pruned run of the same weights, settings, rows and judge.
    """
    kept = [record for record in records if shown(record)]
    names = list(dict.fromkeys(name for record in kept for name in record.datasets))
    names.sort(key=lambda name: (next(r.datasets[name].suite for r in kept if name in r.datasets), name))
    covered: dict[str, set[str]] = {}
    for record in kept:
        covered.setdefault(record.setup.weights, set()).update(scored(record))
    rows = [_row(record, covered[record.setup.weights], vanilla(record, records)) for record in kept]
    rows.sort(key=lambda row: (str(row["model"]), str(row["seed"]), -float(row["ratio"] or 0), str(row["method"])))
    return Leaderboard((*LEAD, *names, *TAIL), rows, _notes(kept, rows))


def scored(record: RunRecord) -> dict[str, DatasetRecord]:
    """The run's benchmarks that have a score."""
    return {name: entry for name, entry in record.datasets.items() if entry.score is not None}


def vanilla(record: RunRecord, records: Iterable[RunRecord]) -> RunRecord | None:
    """The un-pruned run that `record` is measured against: same weights, pixels, prompts, generation and rows."""
    same = ("weights", "processor", "prompts", "max_new_tokens", "limit", "dtype", "attention", "device")
    for other in records:
        equal = all(getattr(other.setup, name) == getattr(record.setup, name) for name in same)
        if equal and other.setup.method.kind == "none":
            return other
    return None


def text(column: str, value: Cell) -> str:
    """A value as a reader wants it: ratios, operations and memory with three digits, everything else with one."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if column in ("ratio", "TFLOPs", "KV MB") else f"{value:.1f}"
    return str(value)


def _row(record: RunRecord, covered: set[str], reference: RunRecord | None) -> dict[str, Cell]:
    """One run's values."""
    setup, entries = record.setup, scored(record)
    scores = {name: entry.score.value for name, entry in entries.items() if entry.score}
    none = setup.method.kind == "none"
    ledgers = [(entry.ledger, entry.answered) for entry in entries.values() if entry.ledger]
    mark = " !" * any(one.flagged for one, _ in ledgers) + " ~" * any(one.adaptive for one, _ in ledgers)
    tokens = _mean((one.average, weight) for one, weight in ledgers)
    row: dict[str, Cell] = {
        "model": record.model.name,
        "method": setup.method.name,
        "ratio": setup.ratio,
        "layer": _layers([layer for layer, _ in setup.method.stages]),
        "protocol": None if none else setup.protocol,
        "seed": setup.seed,
        "settings": _settings(record),
        **scores,
        "average": fmean(scores.values()) if scores and covered == set(scores) else None,
        "relative %": _relative(entries, scored(reference)) if reference else None,
        "visual tokens": tokens if tokens is None or not mark else f"{tokens:.1f}{mark}",
        "TFLOPs": _all((one.flops.total / 1e12 if one.flops else None, weight) for one, weight in ledgers),
        "KV MB": _all((None if one.kv_bytes is None else one.kv_bytes / 1e6, weight) for one, weight in ledgers),
        "rows": sum(entry.score.rows for entry in entries.values() if entry.score),
        "judge": ", ".join(sorted({entry.score.judge for entry in entries.values() if entry.score})) or None,
        "identity": record.identity,
    }
    timings = [entry.timing for entry in entries.values() if entry.timing]
    for span in ("total", "prefill", "method"):
        row[f"{span} ms"] = _mean((getattr(one, span).median, one.rows) for one in timings)
    row["TTFT ms"] = _all((one.ttft.median if one.ttft else None, one.rows) for one in timings)
    return row


def _layers(layers: list[int]) -> str | None:
    """Pruning points as text: "0", "0+2", or "1…5" where there are many."""
    return (f"{layers[0]}…{layers[-1]}" if len(layers) > 3 else "+".join(map(str, layers))) or None


def _settings(record: RunRecord) -> str:
    """What else tells runs apart: fields the user set, prompts, row limit, answer length, precision, kernel, device."""
    setup = record.setup
    passed = [f"{name}={value}" for name, value in setup.method.passed.items() if not name.endswith(".layer")]
    prompts = [f"prompts={setup.prompts}"] * (setup.prompts != "benchmark")
    limits = [f"limit={setup.limit}"] * (setup.limit is not None)
    limits += [f"max-new-tokens={setup.max_new_tokens}"] * (setup.max_new_tokens is not None)
    return " ".join([*passed, *prompts, *limits, setup.dtype, setup.attention, setup.device])


def _relative(entries: dict[str, DatasetRecord], reference: dict[str, DatasetRecord]) -> float | None:
    """Mean of score / vanilla score in percent; None unless every benchmark has one of the same rows and judge."""
    shares = []
    for name, entry in entries.items():
        other = reference.get(name)
        if other is None or entry.score is None or other.score is None:
            return None
        if (entry.data, entry.prompts, entry.score.judge) != (other.data, other.prompts, other.score.judge):
            return None
        if other.score.value > 0:
            shares.append(100 * entry.score.value / other.score.value)
    return fmean(shares) if shares else None


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


def _notes(records: Sequence[RunRecord], rows: Sequence[dict[str, Cell]]) -> tuple[str, ...]:
    """What a reader must know about this table."""
    notes = []
    marks = {mark for row in rows for mark in "!~" if mark in str(row["visual tokens"])}
    if "!" in marks:
        notes.append("! the measured visual tokens are off the requested budget by more than one token in some row.")
    if "~" in marks:
        notes.append("~ the method chooses its own number of tokens: its ratio is nominal, this is what it kept.")
    if any(row["average"] is None for row in rows):
        notes.append("No average: the run lacks a benchmark that another run of the same model has.")
    if faulty := {(name, row) for r in records for name, entry in r.datasets.items() for row in entry.faulty}:
        notes.append(f"{len(faulty)} rows could not be asked (damaged images, …); record.json of each run names them.")
    open_ = [(r, n, e) for r in records for n, e in r.datasets.items() if e.score is None]
    for record, name, entry in open_:
        notes.append(f"{record.identity} {name}: {entry.answered} of {entry.rows} rows answered, not scored yet.")
    return tuple(notes)


_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>UniPrune leaderboard</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }}
th {{ position: sticky; top: 0; background: #fff; border-bottom: 2px solid #333; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
tr:hover td {{ background: #f4f7fb; }}
</style>
<h1>UniPrune leaderboard</h1>
<table>
{table}</table>
{notes}"""
