"""Published claims "A beats B by x", set against the spread of what papers print for A and B."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from uniprune.reports.printed.data import AGGREGATES, UNPRUNED, Literature, Value
from uniprune.reports.printed.query import Group, groups


@dataclass(frozen=True)
class Claim:
    """A source's own method above a baseline, in one column of one table.

    Attributes:
        better: the number of its own method.
        worse: the number of the baseline.
        spread: the larger spread of both methods over all sources; None where nobody else prints either.
    """

    better: Value
    worse: Value
    spread: float | None

    @property
    def lead(self) -> float:
        """The x of "A beats B by x"."""
        return round(self.better.number - self.worse.number, 6)

    @property
    def verdict(self) -> Literal["inside", "outside", "single"]:
        """The place of the lead: inside the spread, outside, or with no second source to set it against."""
        if self.spread is None:
            return "single"
        return "inside" if self.lead <= self.spread + 1e-9 else "outside"


def claims(literature: Literature, values: Iterable[Value]) -> list[Claim]:
    """Return all claims that some numbers take part in, largest lead first.

    Means over benchmarks are no claims here, since papers take them over different benchmarks. Suspect numbers make
    no claim and no spread; un-pruned models are no baselines.
    """
    everything = [value for value in literature.values if value.benchmark not in AGGREGATES]
    of: dict[tuple[tuple[str, ...], str], Group] = {}
    for group in groups(literature, everything):
        for value in group.values:
            of[value.group, value.method] = group
    columns: dict[tuple[str, ...], list[Value]] = defaultdict(list)
    for value in everything:
        if not value.suspect and value.method != UNPRUNED:
            columns[_column(value)].append(value)
    chosen = {(value.row, value.benchmark) for value in values}
    found = []
    for column in columns.values():
        for better in column:
            for worse in column:
                if better.origin != "own" or worse.origin == "own" or better.number <= worse.number:
                    continue
                if {(better.row, better.benchmark), (worse.row, worse.benchmark)} & chosen:
                    spreads = [of[one.group, one.method].spread for one in (better, worse)]
                    known = [spread for spread in spreads if spread is not None]
                    found.append(Claim(better, worse, max(known, default=None)))
    return sorted(found, key=lambda claim: -claim.lead)


def _column(value: Value) -> tuple[str, ...]:
    """Return the key of the numbers of a table that stand in one column at one budget."""
    return (*value.row[:5], value.benchmark, value.split, value.unit)
