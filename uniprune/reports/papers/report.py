"""What `compare` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.compare import Compared, as_csv, compare
from uniprune.reports.papers.cost import Cost, cost, read_assumptions
from uniprune.reports.papers.measures import AGAINST, DIRECT, Ours
from uniprune.reports.papers.mini import read_stand_ins
from uniprune.reports.papers.runs import Runs
from uniprune.reports.papers.tables import PaperTable, read_table, table_names
from uniprune.results.records import Store
from uniprune.utils.console import say, stdout, write
from uniprune.utils.paths import ROOT

TIMED = {name for name in (*DIRECT, *AGAINST) if name.endswith((" s", " ms", "ms change", "speed-up"))}
"""What depends on the machine."""
DERIVED = {name for name, (base, _) in AGAINST.items() if base == "score"}
"""What follows from scores that are shown; only the CSV file has it."""


def list_tables(output: Path, mini: bool) -> None:
    """All tables with their status."""
    runs = Runs(Store(output).records())
    table = Table(
        "table", "of", "run", "rows left", "GPU hours", "errata", box=None, header_style="bold", pad_edge=False
    )
    for name in table_names():
        one = _table(name, mini)
        left = cost(one.sweep.cells(), runs, read_assumptions())
        doubted = f"{sum(bool(line.erratum) for line in one.lines)} of {len(one.lines)}"
        todo = ("–", "–") if mini else (f"{left.rows:,}", f"~{left.hours:.1f}")
        table.add_row(name, one.sweep.title, f"{left.done} of {left.cells}", *todo, doubted)
    stdout().print(table)
    say("run: runs x benchmarks scored. GPU hours are estimates; --paper TABLE says what they assume.")


def show_table(name: str, output: Path, csv: Path | None, mini: bool) -> None:
    """One table: ours beside theirs, errata, and what is left to run."""
    table = _table(name, mini)
    runs = Runs(Store(output).records())
    compared = compare(table.lines, runs)
    paper = f" ({table.sweep.paper})" if table.sweep.paper else ""
    say(f"{table.sweep.title}{paper}")
    if mini:
        say("Runs on stand-ins show that the table can be made; the differences mean nothing.")
    shown = [(one, one.ours) for one in compared if one.ours is not None and one.line.quantity not in DERIVED]
    reasons = _numbered(line.erratum for line in table.lines)
    if shown:
        _beside(shown, reasons)
    if reasons:
        doubted = Counter(line.erratum for line in table.lines if line.erratum)
        say(f"errata and doubts: {doubted.total()} of {len(table.lines)} printed numbers")
        for text, number in reasons.items():
            say(f"[{number}] {doubted[text]} x {text if text.startswith('suspect') else f'erratum: {text}'}")
    _left(table, cost(table.sweep.cells(), runs, read_assumptions()), mini)
    if csv is not None:
        write(csv, as_csv(compared))
        say(f"written: {csv}")


def _table(name: str, mini: bool) -> PaperTable:
    """A table, on stand-ins if asked."""
    table = read_table(name)
    if not mini:
        return table
    ins = read_stand_ins()
    lines = tuple(ins.line(line) for line in table.lines)
    return PaperTable(name, table.path, ins.sweep(table.sweep), lines)


def _beside(shown: Sequence[tuple[Compared, Ours]], reasons: Mapping[str, int]) -> None:
    """The numbers that both have, with the numbers of `reasons` to doubt theirs."""
    notes = _numbered(one.line.note for one, _ in shown)
    models = len({one.line.model for one, _ in shown}) > 1
    heads = ("row", "ratio", "column", "quantity", "printed", "ours", "95 %", "difference", "inside", "rows", "see")
    table = Table(*["model"] * models, *heads, box=None, header_style="bold", pad_edge=False)
    for one, ours in shown:
        line = one.line
        digits = len(line.value.partition(".")[2]) or 1
        marks = (f"[{reasons[line.erratum]}]" if line.erratum else "", f"({notes[line.note]})" if line.note else "")
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
            _rows(ours.rows, line.benchmark),
            "".join(marks),
        )
        table.add_row(*(Text(text) for text in texts))
    stdout().print(table)
    say("difference: ours minus theirs; inside: whether theirs lies in our 95 % interval; ±: over seeds.")
    for text, number in notes.items():
        say(f"({number}) {text}")


def _rows(rows: int, benchmark: str) -> str:
    """Rows behind a number, and of how many where some are missing."""
    whole = BENCHMARKS.entry(benchmark).metadata.get("rows") if benchmark else None
    return f"{rows:,} of {whole:,}" if whole and rows < whole else f"{rows:,}"


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    """Text -> its number, equal ones once, empty ones not at all."""
    return {text: number for number, text in enumerate(dict.fromkeys(text for text in texts if text), 1)}


def _left(table: PaperTable, left: Cost, mini: bool) -> None:
    """What is run, what is not, by which command, and what that would cost."""
    say(f"run: {left.done} of {left.cells} (runs x benchmarks)")
    if left.done == left.cells:
        return
    file = table.path.relative_to(ROOT) if table.path.is_relative_to(ROOT) else table.path
    if mini:
        say(f"to run the rest:  python run.py sweep {file} --mini")
        return
    least = "at least " * bool(left.unknown)
    say(f"to run the rest, {least}{left.rows:,} rows:  python run.py sweep {file}")
    say(f"  {least or 'about '}{left.hours:.1f} GPU hours: {_assumption(left)}")
    judged = sorted({name for cell in table.sweep.cells() for name in cell.data or () if _judged(name)})
    if judged:
        say(f"  {', '.join(judged)} need a judge: add --judge URL --judge-model NAME")
    if any(line.quantity in TIMED for line in table.lines):
        say("  times compare at --batch-size 1 on the paper's kind of machine only")


def _assumption(left: Cost) -> str:
    """How the estimate was made."""
    told = read_assumptions()
    text = (
        f"an estimate, rows x ms per row, measured in stored runs for {left.measured:,} rows, else assumed for "
        f"{told.device}: {told.prompt_ms_per_billion:g} ms a prompt and {told.token_ms_per_billion:g} ms a token per "
        "billion parameters (configs/cost.yaml); pruning is not credited"
    )
    text += f"; rows are guessed for {', '.join(sorted(left.guessed))}" * bool(left.guessed)
    return text + f"; left out, because unknown: {', '.join(sorted(left.unknown))}" * bool(left.unknown)


def _judged(name: str) -> bool:
    """Whether a benchmark cannot be scored without a judge."""
    return bool(BENCHMARKS.entry(name).metadata.get("judge"))
