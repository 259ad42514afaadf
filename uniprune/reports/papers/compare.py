"""Ours beside theirs: every printed number of a table joined with the stored runs."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uniprune.reports.papers.measures import AGAINST, DIRECT, MEANS, Ours, against, direct, mean
from uniprune.reports.papers.runs import Runs
from uniprune.reports.papers.tables import Printed

COLUMNS = (
    *("row", "model", "method", "settings", "ratio", "benchmark", "column", "quantity", "printed", "printed spread"),
    *("ours", "low", "high", "spread", "difference", "inside", "runs", "rows", "erratum", "note"),
)


@dataclass(frozen=True)
class Compared:
    """A printed number and ours, if there is one."""

    line: Printed
    ours: Ours | None

    @property
    def difference(self) -> float | None:
        """Ours minus theirs."""
        theirs = self.line.number
        return self.ours.value - theirs if self.ours and theirs is not None else None

    @property
    def inside(self) -> bool | None:
        """Whether the printed number lies in our interval; None without an interval or a number."""
        theirs = self.line.number
        if self.ours is None or self.ours.interval is None or theirs is None:
            return None
        low, high = self.ours.interval
        return low <= theirs <= high

    def values(self) -> dict[str, object]:
        """As a line of a CSV file, numbers unrounded."""
        line, ours = self.line, self.ours
        low, high = (ours.interval if ours else None) or (None, None)
        told = line.model_dump(exclude={"value", "spread"}) | {"printed": line.value, "printed spread": line.spread}
        mine = {"ours": ours.value, "spread": ours.spread, "runs": len(ours.values), "rows": ours.rows} if ours else {}
        return told | mine | {"low": low, "high": high, "difference": self.difference, "inside": self.inside}


def compare(lines: Sequence[Printed], runs: Runs) -> list[Compared]:
    """Every printed number of a table with ours."""
    rows: dict[tuple[str, str, float], list[Printed]] = defaultdict(list)
    for line in lines:
        rows[line.place].append(line)
    return [Compared(line, ours(line, rows[line.place], runs) if line.method else None) for line in lines]


def ours(line: Printed, row: Sequence[Printed], runs: Runs) -> Ours | None:
    """Our counterpart of a number in its row; None where nothing of the kind is stored."""
    if line.quantity not in MEANS:
        return measured(line, runs)
    parts = [measured(part, runs) for part in row if part.quantity == MEANS[line.quantity]]
    known = [part for part in parts if part is not None]
    return mean(known) if known and len(known) == len(parts) else None


def measured(line: Printed, runs: Runs) -> Ours | None:
    """Our counterpart of a number about one benchmark."""
    entries = runs.entries(line.model, line.choice(), line.benchmark)
    if not entries:
        return None
    if line.quantity in DIRECT:
        return direct(entries, line.quantity)
    if line.quantity not in AGAINST:
        return None
    base = AGAINST[line.quantity][0]
    pruned, vanilla = direct(entries, base), direct(runs.vanilla(entries[0], line.benchmark), base)
    return against(pruned, vanilla, line.quantity) if pruned and vanilla else None


def as_csv(compared: Iterable[Compared]) -> str:
    """Comma-separated values, numbers unrounded, a line per printed number."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(one.values() for one in compared)
    return file.getvalue()
