"""The answer to a question to the literature: groups, our numbers, claims, and all of it as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uniprune.reports.printed.claims import Claim, claims
from uniprune.reports.printed.data import Literature, Value, read_literature
from uniprune.reports.printed.query import Group, Question, find, groups
from uniprune.utils.tables import to_csv

if TYPE_CHECKING:
    from uniprune.reports.printed.ours import Measured
    from uniprune.results.records import RunRecord

COLUMNS = (
    *("table", "model", "budget", "method", "benchmark", "split", "printed", "unit", "unpruned", "of unpruned %"),
    *("paper", "source", "place", "text", "origin", "copy of", "suspect", "remark", "lowest", "highest", "spread"),
    *("ours", "low", "high", "ours of"),
)


@dataclass(frozen=True)
class Answer:
    """Printed numbers, our own, and claims that lie inside or outside the spread.

    Attributes:
        literature: all printed numbers.
        question: what was asked.
        groups: numbers that stand side by side.
        claims: those that the numbers take part in.
        ours: our numbers, by group.
    """

    literature: Literature
    question: Question
    groups: Sequence[Group]
    claims: Sequence[Claim]
    ours: Sequence[Sequence[Measured]]

    def csv(self) -> str:
        """Return comma-separated values, a line per printed number; of several numbers of ours the first."""
        lines = []
        for group, measured in zip(self.groups, self.ours, strict=True):
            low, high = group.ends or (None, None)
            shared: dict[str, object] = {"lowest": low, "highest": high, "spread": group.spread}
            if measured:
                ends = measured[0].cell.interval or (None, None)
                shared |= {"ours": measured[0].cell.value, "low": ends[0], "high": ends[1]}
                shared |= {"ours of": measured[0].label}
            lines += [self._line(value) | shared for value in group.values]
        return to_csv(COLUMNS, lines)

    def retention(self, value: Value) -> float | None:
        """Return a number in percent of the un-pruned model's in the same table; None without one."""
        base = self.literature.unpruned(value)
        return 100 * value.number / base.number if base and base.number else None

    def _line(self, value: Value) -> dict[str, object]:
        """Return column -> value of a printed number."""
        source, base = self.literature.sources[value.source], self.literature.unpruned(value)
        fields = value.model_dump(exclude={"value", "copy_of"})
        known = {"printed": value.value, "copy of": value.copy_of, "paper": source.paper, "text": source.text}
        return fields | known | {"unpruned": base and base.value, "of unpruned %": self.retention(value)}


def answer(question: Question, records: Sequence[RunRecord], literature: Literature | None = None) -> Answer:
    """Return what papers print for a question.

    Args:
        question: what is asked.
        records: stored runs, for our own numbers.
        literature: the printed numbers; None reads those of the installation.

    Raises:
        UserError: nobody prints what was asked for.
    """
    literature = literature or read_literature()
    values = find(literature, question)
    found = groups(literature, values)
    return Answer(literature, question, found, claims(literature, values), _ours(literature, found, records))


def _ours(literature: Literature, found: Sequence[Group], records: Sequence[RunRecord]) -> Sequence[Sequence[Measured]]:
    """Return our numbers by group; the statistics are imported only if there are any runs."""
    if not records:
        return [()] * len(found)
    from uniprune.reports.printed.ours import OurRuns

    runs = OurRuns(records, literature)
    return [runs.find(group) for group in found]
