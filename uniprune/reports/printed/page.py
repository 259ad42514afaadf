"""Page of printed numbers: one plot per benchmark and budget, a line per method, a mark per source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader

from uniprune.reports.printed.answer import Answer
from uniprune.reports.printed.data import Literature
from uniprune.reports.printed.query import Group
from uniprune.reports.printed.show import summary

if TYPE_CHECKING:
    from uniprune.reports.printed.ours import Measured

PAGES = Path(__file__).parent / "pages"
LEFT, RIGHT, LINE = 190, 700, 22
"""Ends of the scale and height of a method's line, in pixels."""


@dataclass(frozen=True)
class Scale:
    """Maps numbers to pixels.

    Attributes:
        low: number at the left end.
        high: number at the right end.
    """

    low: float
    high: float

    def __call__(self, number: float) -> float:
        """Return the place of a number."""
        return round(LEFT + (RIGHT - LEFT) * (number - self.low) / (self.high - self.low), 1)


@dataclass(frozen=True)
class Plot:
    """One benchmark and budget.

    Attributes:
        title: benchmark, model, budget and protocol.
        lines: groups and our numbers, one per method, best first.
        scale: places of numbers.
    """

    title: str
    lines: Sequence[tuple[Group, Sequence[Measured]]]
    scale: Scale

    @property
    def height(self) -> int:
        """Pixels."""
        return LINE * (len(self.lines) + 2)


def plots(answer: Answer) -> list[Plot]:
    """Return the plots of an answer, in the order of its groups."""
    found: dict[tuple[str, ...], list[tuple[Group, Sequence[Measured]]]] = {}
    for group, ours in zip(answer.groups, answer.ours, strict=True):
        found.setdefault(group.values[0].group, []).append((group, ours))
    return [_plot(answer.literature, lines) for lines in found.values()]


def _plot(literature: Literature, lines: list[tuple[Group, Sequence[Measured]]]) -> Plot:
    """Return the plot of numbers that stand side by side."""
    first = lines[0][0].values[0]
    numbers = [value.number for group, _ in lines for value in group.values]
    ends = [end for _, ours in lines for one in ours for end in (one.cell.value, *(one.cell.interval or ()))]
    low, high = min(numbers + ends), max(numbers + ends)
    room = 0.05 * (high - low) or 1
    lines.sort(key=lambda line: -(line[0].ends or (0, 0))[1])
    split = f" ({first.split})" * bool(first.split)
    title = f"{first.benchmark}{split}, {first.model} at {literature.budget(first)}, {first.unit} ({first.table})"
    return Plot(title, lines, Scale(low - room, high + room))


def page(answer: Answer) -> str:
    """Return a page that needs no other file and no network."""
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("printed.html")
    return template.render(
        answer=answer, plots=plots(answer), summary=summary, left=LEFT, right=RIGHT, line=LINE, zip=zip
    )
