"""Every printed number of a table joined with the stored runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uniprune.reports.papers.line import Printed
from uniprune.reports.papers.measures import MEANS, measured
from uniprune.reports.papers.runs import Source, StoredRuns
from uniprune.results.budgets import agree, visual_tokens
from uniprune.results.remarks import all_remarks
from uniprune.results.table import ScoreCell
from uniprune.utils.tables import to_csv

COLUMNS = (
    *(
        "row",
        "model",
        "method",
        "settings",
        "ratio",
        "protocol",
        "benchmark",
        "column",
        "quantity",
        "printed",
        "printed spread",
    ),
    *("ours", "low", "high", "spread", "difference", "inside"),
    *("runs", "rows", "left out", "remarks", "erratum", "note", "unlike"),
)


@dataclass(frozen=True)
class Compared:
    """A printed number and ours.

    Attributes:
        line: the printed number.
        ours: our number; None if no such runs are stored.
        sources: the runs behind it, one source per benchmark.
        unlike: policies of prompts and images in which they differ from the paper's harness; empty for none.
        part_rows: rows of the part that the number is about; None for all rows.
    """

    line: Printed
    ours: ScoreCell | None = None
    sources: tuple[Source, ...] = ()
    unlike: str = ""
    part_rows: int | None = None

    @property
    def runs(self) -> int:
        """Runs with different seeds behind our number."""
        return min(len(source.entries) for source in self.sources)

    @property
    def rows(self) -> int:
        """Rows of a run behind our number: scored, or answered where there is no score yet."""
        if self.part_rows is not None:
            return self.part_rows
        return sum(
            min(entry.score.rows if entry.score else entry.answered for entry in source.entries)
            for source in self.sources
        )

    @property
    def left_out(self) -> int:
        """Rows of the benchmarks' files that are in no score of ours."""
        return sum(max(len(entry.faulty) for entry in source.entries) for source in self.sources)

    @property
    def difference(self) -> float | None:
        """Ours minus theirs."""
        theirs = self.line.number
        return self.ours.value - theirs if self.ours and theirs is not None else None

    @property
    def inside(self) -> bool | None:
        """Return whether the printed number is in our interval; None without an interval or a number."""
        theirs = self.line.number
        if self.ours is None or self.ours.interval is None or theirs is None:
            return None
        low, high = self.ours.interval
        return low <= theirs <= high

    def values(self) -> dict[str, object]:
        """Return column -> value of the CSV file."""
        line, ours = self.line, self.ours
        theirs = line.model_dump(exclude={"value", "spread", "scale", "averaged", "part", "parted_by"}) | {
            "printed": line.value,
            "printed spread": line.spread,
        }
        low, high = (ours.interval if ours else None) or (None, None)
        mine: dict[str, object] = {"unlike": self.unlike}
        if ours:
            mine |= {"ours": ours.value, "spread": ours.spread}
            mine |= {"runs": self.runs, "rows": self.rows, "left out": self.left_out}
        models = (run.model for source in self.sources for run in source.group.runs)
        mine["remarks"] = all_remarks({source.benchmark: source.entries for source in self.sources}, models)
        return theirs | mine | {"low": low, "high": high, "difference": self.difference, "inside": self.inside}


def compare(lines: Sequence[Printed], stored: StoredRuns) -> list[Compared]:
    """Join every printed number of a table with ours."""
    rows: dict[tuple[str, str, float], list[Printed]] = defaultdict(list)
    for line in lines:
        rows[line.place].append(line)
    return [_compared(line, rows[line.place], stored) for line in lines]


def _compared(line: Printed, row: Sequence[Printed], stored: StoredRuns) -> Compared:
    """Join a printed number of a row with ours."""
    quantity = MEANS.get(line.quantity, line.quantity)
    parts = made_from(line, row)
    if not parts:
        return Compared(line)
    if line.part:
        return on_part(line, stored) if quantity == "score" and line.quantity not in MEANS else Compared(line)
    found = [stored.find(part.model, part.choice(), part.benchmark, part.protocol) for part in parts]
    sources = tuple(source for source in found if source is not None)
    ours = measured(sources, quantity, stored) if len(sources) == len(parts) else None
    if ours is None:
        return Compared(line)
    unlike = dict.fromkeys(stored.unlike_paper(source.group, line.model) for source in sources)
    if quantity == "score":
        ours = _scaled(ours, line.scale)
    return Compared(line, ours, sources, "; ".join(text for text in unlike if text))


def on_part(line: Printed, stored: StoredRuns) -> Compared:
    """Join a printed number about a part of the rows with ours; parted as in the paper, whatever the budgets are."""
    source = stored.find(line.model, line.choice(), line.benchmark, line.protocol)
    parting = stored.find(line.model, line.parting(), line.benchmark)
    if source is None or parting is None:
        return Compared(line)
    found = stored.hard.score_by(source.group, parting.group, line.benchmark, line.part)
    if found is None or found.accuracy is None:
        return Compared(line)
    budgets = [visual_tokens(one.group, [line.benchmark]) for one in (source, parting)]
    unequal = "the resized run that parts the rows has another measured budget" * (not agree(*budgets))
    unlike = "; ".join(text for text in (stored.unlike_paper(source.group, line.model), unequal) if text)
    cell = ScoreCell(found.accuracy.value, found.accuracy.interval())
    return Compared(line, cell, (source,), unlike, found.rows)


def parts_of(line: Printed, lines: Iterable[Printed]) -> list[Printed]:
    """Return the printed numbers of its row that a mean includes: relative ones if there are any, else scores."""
    row = [part for part in lines if part.place == line.place and part.averaged]
    quantity = MEANS[line.quantity]
    return [part for part in row if part.quantity == quantity] or [part for part in row if part.quantity == "score"]


def made_from(line: Printed, lines: Iterable[Printed]) -> list[Printed]:
    """Return the printed numbers whose runs make ours: itself, or those of a mean; none if ours cannot be made."""
    if not line.method or line.quantity not in MEANS:
        return [line] * bool(line.method)
    parts = parts_of(line, lines)
    mixed = line.quantity == "average" and any(part.scale != line.scale for part in parts)
    return parts if not mixed and all(part.method for part in parts) else []


def _scaled(cell: ScoreCell, scale: float) -> ScoreCell:
    """Return our score in the paper's unit."""
    low, high = cell.interval or (0.0, 0.0)
    interval = (scale * low, scale * high) if cell.interval else None
    return ScoreCell(scale * cell.value, interval, None if cell.spread is None else scale * cell.spread, cell.form)


def as_csv(compared: Iterable[Compared]) -> str:
    """Return comma-separated values, numbers unrounded, a line per printed number."""
    return to_csv(COLUMNS, [one.values() for one in compared])
