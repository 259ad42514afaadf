"""Text that `compare` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.compare import Compared, as_csv, compare, made_from
from uniprune.reports.papers.cost import Cost, cost, read_assumptions
from uniprune.reports.papers.line import Printed
from uniprune.reports.papers.measures import AGAINST, DIRECT, MEANS
from uniprune.reports.papers.mini import read_stand_ins
from uniprune.reports.papers.runs import StoredRuns
from uniprune.reports.papers.tables import PaperTable, read_table, table_names
from uniprune.results.conditions import condition_cells
from uniprune.results.few import few_notes
from uniprune.results.folders import ResultFolders
from uniprune.results.left_out import left_out_notes
from uniprune.results.records import RunRecord
from uniprune.results.remarks import row_notes
from uniprune.results.table import ScoreCell
from uniprune.utils.console import say, write
from uniprune.utils.paths import PROGRAM, ROOT
from uniprune.utils.terminal import Column, columns, show_table

TIMED = {name for name in (*DIRECT, *AGAINST) if name.endswith((" s", " ms", "ms change", "speed-up"))}
"""Quantities that depend on the machine."""
DERIVED = {name for name, (base, _) in AGAINST.items() if base == "score"}
"""Quantities that follow from scores; only the CSV file has them."""


def list_tables(output: ResultFolders, mini: bool) -> None:
    """Print all tables with their status."""
    stored = _stored_runs(output)
    rows = []
    for name in table_names():
        one = _table(name, mini)
        left = cost(one.sweep.cells(), stored, read_assumptions())
        doubted = f"{sum(bool(line.erratum) for line in one.lines)} of {len(one.lines)}"
        todo = ("–", "–") if mini else (f"{left.rows:,}", f"~{left.seconds / 3600:.1f}")
        rows.append((name, f"{left.done} of {left.pairs}", *todo, doubted, one.sweep.title))
    show_table(columns("table", right=("run", "rows left", "GPU hours", "errata"), prose=["of"]), rows)
    say("run: runs x benchmarks scored. GPU hours are estimates; --paper TABLE says what they assume.")


def show_paper(name: str, output: ResultFolders, csv: Path | None, mini: bool) -> None:
    """Print one table: ours and theirs, errata, and the runs that are left."""
    table = _table(name, mini)
    stored = _stored_runs(output)
    compared = compare(table.lines, stored)
    paper = f" ({table.sweep.paper})" if table.sweep.paper else ""
    say(f"{table.sweep.title}{paper}")
    if mini:
        say("Runs on stand-ins show that the table can be made; the differences mean nothing.")
    shown = [(one, one.ours) for one in compared if one.ours is not None and one.line.quantity not in DERIVED]
    reasons = _numbered(line.erratum for line in table.lines)
    if shown:
        _print_numbers(shown, reasons, stored)
        for note in row_notes(runs_behind(shown, stored)):
            say(note)
    if any(one.line.quantity in TIMED for one in compared):
        timed = [pair for pair in shown if pair[0].line.quantity in TIMED]
        ours = f"; ours: {conditions(timed)}" if timed else ""
        say(f"Times compare at --batch-size 1 on the paper's machine only{ours}.")
    for note in without_ours(table.lines):
        say(note)
    if reasons:
        doubted = Counter(line.erratum for line in table.lines if line.erratum)
        say(f"errata and doubts: {doubted.total()} of {len(table.lines)} printed numbers")
        for text, number in reasons.items():
            say(f"[{number}] {doubted[text]} x {text if text.startswith('suspect') else f'erratum: {text}'}")
    _print_left(table, cost(table.sweep.cells(), stored, read_assumptions()), mini)
    if csv is not None:
        write(csv, as_csv(compared))
        say(f"written: {csv}")


def _stored_runs(output: ResultFolders) -> StoredRuns:
    """Read all stored runs; print which files are left out or in doubt."""
    return StoredRuns(output.records(say))


def _table(name: str, mini: bool) -> PaperTable:
    """Read a table, with stand-ins if `mini`."""
    table = read_table(name)
    if not mini:
        return table
    ins = read_stand_ins()
    lines = tuple(ins.line(line) for line in table.lines)
    return PaperTable(name, table.path, ins.sweep(table.sweep), lines)


def _print_numbers(shown: Sequence[tuple[Compared, ScoreCell]], reasons: Mapping[str, int], stored: StoredRuns) -> None:
    """Print the numbers that exist on both sides; `reasons` numbers the doubts about theirs."""
    notes = _numbered(text for one, _ in shown for text in (one.line.note, one.unlike))
    models = len({one.line.model for one, _ in shown}) > 1
    heads = ("row", "ratio", "column", "quantity", "printed", "ours", "95 %", "difference", "inside", "rows", "see")
    rows = []
    for one, ours in shown:
        line = one.line
        digits = len(line.value.partition(".")[2]) or 1
        marks = [f"[{reasons[line.erratum]}]" if line.erratum else ""]
        marks += [f"({notes[text]})" for text in (line.note, one.unlike) if text]
        texts = (
            *[line.model] * models,
            line.row,
            f"{line.ratio:g}",
            line.column,
            line.quantity,
            (line.value or "–") + f" ± {line.spread}" * bool(line.spread),
            f"{ours.value:.{digits}f}" + ("" if ours.spread is None else f" ± {ours.spread:.1f}"),
            "" if ours.interval is None else "[{:.1f}, {:.1f}]".format(*ours.interval),
            "" if one.difference is None else f"{one.difference:+.{digits}f}",
            {True: "yes", False: "no", None: ""}[one.inside],
            _rows(one.rows, line.benchmark),
            "".join(marks),
        )
        rows.append(texts)
    numbers = {"ratio", "printed", "ours", "95 %", "difference", "rows"}
    lead = ["model"] * models + ["row", "ratio", "column"]
    show_table([Column(name, right=name in numbers) for name in (*["model"] * models, *heads)], rows, keys=len(lead))
    say("difference: ours minus theirs; inside: whether theirs is in our 95 % interval; ±: over seeds.")
    sources = [source for one, _ in shown if one.line.quantity == "score" for source in one.sources]
    if odd := sorted({benchmark for group, benchmark in sources if group.credit_interval(benchmark)}):
        say(f"The interval is that of the mean credit per item, not of the headline, for {', '.join(odd)}.")
    behind = [source for one, _ in shown for source in one.sources]
    groups = {tuple(run.identity for run in source.group.runs): source.group for source in behind}
    names = {source.benchmark for source in behind}
    for note in (*few_notes(groups.values(), stored.comparison, names), *left_out_notes(list(groups.values()), names)):
        say(note)
    for text, number in notes.items():
        say(f"({number}) {text}")


def without_ours(lines: Sequence[Printed]) -> list[str]:
    """Return remarks on the printed numbers that no run can be set beside: rows, columns and means that we lack."""
    means = sum(line.quantity in MEANS and not made_from(line, lines) for line in lines)
    columns = dict.fromkeys(line.column for line in lines if not line.benchmark and line.quantity not in MEANS)
    rows = dict.fromkeys(line.row for line in lines if line.benchmark and not line.method)
    remarks = []
    if rows:
        remarks.append(f"rows without a method or setting of ours: {'; '.join(rows)}")
    if columns:
        remarks.append(f"columns without a benchmark of ours: {', '.join(columns)}")
    if means:
        remarks.append(f"{means} means over a row are without ours: they include such a number, or mix units")
    return remarks


def runs_behind(shown: Sequence[tuple[Compared, ScoreCell]], stored: StoredRuns) -> list[tuple[RunRecord, str]]:
    """Return the benchmarks of the runs that our numbers come from, each once; un-pruned runs where compared with."""
    sources = [source for one, _ in shown for source in one.sources]
    relative = [one for one, _ in shown if MEANS.get(one.line.quantity, one.line.quantity) in AGAINST]
    sources += [base for one in relative for source in one.sources if (base := stored.baseline(source)) is not None]
    runs = {(run.identity, name): (run, name) for group, name in sources for run in group.runs}
    return list(runs.values())


def conditions(shown: Sequence[tuple[Compared, ScoreCell]]) -> str:
    """Return the batch sizes and machines of the runs that our numbers come from, in words."""
    found = (condition_cells(source.group) for one, _ in shown for source in one.sources)
    return "; ".join(dict.fromkeys(f"batch size {cells['batch']} on {cells['device']}" for cells in found))


def _rows(rows: int, benchmark: str) -> str:
    """Return the rows behind a number, and of how many if some are missing."""
    known = BENCHMARKS.entry(benchmark).metadata.get("rows") if benchmark else None
    return f"{rows:,} of {known:,}" if known and rows < known else f"{rows:,}"


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    """Number the different texts that are not empty."""
    return {text: number for number, text in enumerate(dict.fromkeys(text for text in texts if text), 1)}


def _print_left(table: PaperTable, left: Cost, mini: bool) -> None:
    """Print how much is run, the command that runs the rest, and its cost."""
    say(f"run: {left.done} of {left.pairs} (runs x benchmarks)")
    if left.done == left.pairs:
        return
    file = table.path.relative_to(ROOT) if table.path.is_relative_to(ROOT) else table.path
    if mini:
        say(f"to run the rest:  {PROGRAM} sweep {file} --mini")
        return
    least = "at least " * bool(left.unknown)
    say(f"to run the rest, {least}{left.rows:,} rows:  {PROGRAM} sweep {file}")
    say(f"  {least or 'about '}{left.seconds / 3600:.1f} GPU hours: {_assumption(left)}")
    judged = sorted({name for cell in table.sweep.cells() for name in cell.data or () if _judged(name)})
    if judged:
        say(f"  {', '.join(judged)} need a judge: add --judge URL --judge-model NAME")


def _assumption(left: Cost) -> str:
    """Return how the estimate was made."""
    assumed = read_assumptions()
    prompt, token = assumed.prompt_ms_per_billion, assumed.token_ms_per_billion
    text = (
        f"an estimate, by the nearest stored run of the model for {left.measured:,} rows, else assumed for "
        f"{assumed.device}: {prompt:g} ms a prompt and {token:g} ms a token per billion parameters, pruning not "
        "credited (configs/cost.yaml)"
    )
    text += f"; rows are guessed for {', '.join(sorted(left.guessed))}" * bool(left.guessed)
    return text + f"; left out, because unknown: {', '.join(sorted(left.unknown))}" * bool(left.unknown)


def _judged(name: str) -> bool:
    """Return whether a benchmark cannot be scored without a judge."""
    return bool(BENCHMARKS.entry(name).metadata.get("judge"))
