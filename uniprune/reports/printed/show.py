"""Text that `compare --printed` prints, at most 80 columns wide where names allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.table import Table

from uniprune.reports.printed.answer import Answer
from uniprune.reports.printed.claims import Claim, claims
from uniprune.reports.printed.data import Literature, Value
from uniprune.reports.printed.query import Group
from uniprune.utils.console import say, stdout
from uniprune.utils.paths import PROGRAM

if TYPE_CHECKING:
    from uniprune.reports.printed.ours import Measured

WIDTH = 80
LEGEND = (
    "own: the paper's own method; rerun: run by the paper itself; unstated: run or",
    "copied, it does not say; = N: digit for digit the same row in N, which has an",
    "earlier arXiv number or is the method's own paper.",
)
SPREAD = (
    "Spreads are largest minus smallest, without suspect numbers. They hold what",
    "protocols differ in, too: compare the un-pruned numbers.",
)


def show_sources(literature: Literature) -> None:
    """Print the sources and how much of them is doubted."""
    numbers = Counter(value.source for value in literature.values)
    doubted = Counter(value.source for value in literature.values if value.suspect)
    copies = Counter(value.source for value in literature.values if value.origin == "copy")
    table = _table("paper", "source", "text", right=("numbers", "copied", "suspect"))
    for name, source in literature.sources.items():
        table.add_row(source.paper, name, source.text, f"{numbers[name]}", f"{copies[name]}", f"{doubted[name]}")
    _print(table)
    say(f"{numbers.total():,} numbers; {copies.total():,} copied, {doubted.total():,} suspect")
    _say_claims(claims(literature, literature.values))
    say(f"ask, for example:\n  {PROGRAM} compare --printed --method NAME --benchmark NAME --tokens 64")


def show_answer(answer: Answer) -> None:
    """Print every value of one method and benchmark, or else one line per group."""
    question = answer.question
    if question.method is not None and question.benchmark is not None:
        for group, ours in zip(answer.groups, answer.ours, strict=True):
            _show_group(answer, group, ours)
        for line in (*LEGEND, *SPREAD):
            say(line)
        _show_claims(answer.claims)
    else:
        _show_summary(answer)
        for line in SPREAD:
            say(line)
        say(f"every value: add {'--method' if question.method is None else '--benchmark'} NAME, or --csv FILE")
        _say_claims(answer.claims)


def title(literature: Literature, group: Group) -> str:
    """Return "A on B, model at 64 tokens (protocol)": method, benchmark, model, budget and protocol."""
    first = group.values[0]
    split = f" ({first.split})" * bool(first.split)
    unit = f", {first.unit}" * (first.unit != "%")
    budget = literature.budget(first)
    return f"{group.method} on {first.benchmark}{split}{unit}, {first.model} at {budget} ({first.table})"


def summary(group: Group) -> str:
    """Return the range of a group's numbers, and how many there are of each kind."""
    texts = [_range(group)]
    if group.spread is not None:
        texts.append(f"spread {group.spread:.{group.decimals}f}")
    sources = len({value.source for value in group.values})
    kinds = Counter(value.origin for value in group.values)
    texts.append(f"{len(group.values)} of {sources} source{'s' * (sources > 1)}")
    texts += [f"{kinds[kind]} {kind}" for kind in ("own", "rerun", "copy", "unstated") if kinds[kind]]
    doubted = len(group.values) - len(group.trusted)
    return ", ".join(texts) + f"; {doubted} suspect, left out of the spread" * bool(doubted)


def _show_group(answer: Answer, group: Group, ours: Sequence[Measured]) -> None:
    """Print all values of a group with their sources, doubts, and our own."""
    say(title(answer.literature, group))
    _wrapped("  " + summary(group))
    table = _table(right=("value", "un-pruned", "%"), last=("origin", "source"))
    notes: dict[str, int] = {}
    for value in group.values:
        marks = "".join(f"[{number}]" for number in _notes(answer, group, value, notes))
        base, kept = answer.literature.unpruned(value), answer.retention(value)
        origin = f"= {value.copy_of}" if value.copy_of else value.origin
        source = answer.literature.sources[value.source]
        second = " second-hand" * (source.text == "second-hand")
        text = f"{source.label}, {value.place}{second} {marks}".rstrip()
        table.add_row(
            value.value + "?" * bool(value.suspect),
            base.value if base else "–",
            f"{kept:.1f}" if kept is not None else "–",
            origin,
            text.replace("[", "\\["),
        )
    _print(table)
    for text, number in notes.items():
        _wrapped(f"[{number}] {text}")
    for one in ours:
        _wrapped(f"ours: {one.cell.wide()}, {one.label}" + f"; {one.note}" * bool(one.note))
    if not ours:
        say("ours: no stored run of this model, benchmark and measured budget")
    say("")


def _notes(answer: Answer, group: Group, value: Value, notes: dict[str, int]) -> Iterator[int]:
    """Number the remarks on a value: its doubt first."""
    literature = answer.literature
    printed = f"printed as {value.method}" * (value.method != group.method)
    doubt = f"? suspect: {value.suspect}" * bool(value.suspect)
    general = [literature.tables[value.row[:4]], literature.sources[value.source]]
    for text in (doubt, value.remark, printed, *(one.remark for one in general if one.concerns(value))):
        if text:
            yield notes.setdefault(text, len(notes) + 1)


def _show_summary(answer: Answer) -> None:
    """Print one line per group, a table per model and protocol; a column of equal cells moves to its heading."""
    sections: dict[tuple[str, str], list[tuple[list[str], list[str]]]] = {}
    for group, ours in zip(answer.groups, answer.ours, strict=True):
        first = group.values[0]
        copied = sum(value.origin == "copy" for value in group.values)
        spread = "–" if group.spread is None else f"{group.spread:.{group.decimals}f}"
        benchmark = first.benchmark + f" {first.split}" * bool(first.split)
        names = [answer.literature.budget(first), benchmark, group.method]
        numbers = [str(len(group.values)), str(copied), _range(group), spread, _first(ours)]
        sections.setdefault((first.model, first.table), []).append((names, numbers))
    for (model, protocol), lines in sections.items():
        shown = [i for i in range(3) if len({names[i] for names, _ in lines}) > 1 or i == 2]
        same = [lines[0][0][i] for i in range(3) if i not in shown]
        say(", ".join([f"{model} ({protocol})", *same]))
        heads = [("budget", "benchmark", "method")[i] for i in shown]
        table = _table(*heads, right=("values", "copied", "range", "spread", "ours"))
        for names, numbers in lines:
            table.add_row(*[names[i] for i in shown], *numbers)
        _print(table)


def _show_claims(found: Sequence[Claim]) -> None:
    """Print every claim and its verdict."""
    if found:
        several = [name for name in ("model", "budget") if len({getattr(one.better, name) for one in found}) > 1]
        table = _table("better", "than", right=("by", "spread"), last=("verdict", "source", *several))
        for one in found:
            spread = "–" if one.spread is None else f"{one.spread:.4g}"
            where = [one.better.source, *(getattr(one.better, name) for name in several)]
            table.add_row(one.better.method, one.worse.method, f"{one.lead:.4g}", spread, one.verdict, *where)
        _print(table)
    _say_claims(found)


def _say_claims(found: Sequence[Claim]) -> None:
    """Print how many claims lie inside the spread."""
    kinds = Counter(claim.verdict for claim in found)
    inside, outside, single = (f"{kinds[kind]:,}" for kind in ("inside", "outside", "single"))
    _wrapped(
        f'claims "A beats B by x" with A the own method of the paper: {len(found):,}; {inside} inside the spread of '
        f"what papers print for A or B, {outside} outside, {single} without second source"
    )


def _first(ours: Sequence[Measured]) -> str:
    """Return our first number and how many others there are."""
    return str(ours[0].cell) + f" (+{len(ours) - 1})" * (len(ours) > 1) if ours else "–"


def _range(group: Group) -> str:
    """Return "35.5 to 48.0" of the trusted values."""
    if group.ends is None:
        return "none trusted"
    low, high = (f"{end:.{group.decimals}f}" for end in group.ends)
    return low if low == high else f"{low} to {high}"


def _table(*left: str, right: Sequence[str] = (), last: Sequence[str] = ()) -> Table:
    """Return an empty table with columns aligned to the left, to the right, and to the left again."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in last:
        table.add_column(name)
    return table


def _wrapped(text: str) -> None:
    """Print a text in lines of at most 80 characters."""
    for line in wrap(text, WIDTH, subsequent_indent="    ", break_long_words=False):
        say(line)


def _print(table: Table) -> None:
    """Print a table; where standard output is no terminal, 80 characters wide."""
    stdout(WIDTH).print(table, highlight=False)
