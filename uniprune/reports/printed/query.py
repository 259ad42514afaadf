"""Printed numbers by method, benchmark, budget and model; what stands side by side, and how far it spreads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from uniprune.errors import UserError
from uniprune.reports.printed.data import Literature, Value

RATIO_TOLERANCE = 0.0006
"""Ratios that differ less are equal: papers print 11.1 % for one ninth."""


@dataclass(frozen=True)
class Question:
    """A question to the literature; None asks for all.

    Attributes:
        method: a printed name or one of ours.
        benchmark: likewise.
        model: likewise.
        tokens: visual tokens kept.
        ratio: share of the visual tokens kept.
    """

    method: str | None = None
    benchmark: str | None = None
    model: str | None = None
    tokens: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.ratio is not None:
            raise UserError("--tokens and --ratio are two names of one budget; give one of them")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise UserError(f"--ratio {self.ratio:g}: expected a share of the visual tokens, 0 to 1, as in 0.111")


@dataclass(frozen=True)
class Group:
    """Numbers of one method that can be set side by side: same model, protocol, budget, benchmark, split and unit.

    Attributes:
        method: its printed name.
        values: at least one, in the order of their sources.
    """

    method: str
    values: tuple[Value, ...]

    @property
    def trusted(self) -> list[Value]:
        """Values without doubt."""
        return [value for value in self.values if not value.suspect]

    @property
    def first_hand(self) -> list[Value]:
        """Trusted values that no earlier source prints in the same row."""
        return [value for value in self.trusted if value.origin != "copy"]

    @property
    def ends(self) -> tuple[float, float] | None:
        """Smallest and largest trusted value; None without any."""
        numbers = [value.number for value in self.trusted]
        return (min(numbers), max(numbers)) if numbers else None

    @property
    def spread(self) -> float | None:
        """Largest minus smallest trusted value; None where fewer than two sources stand for one."""
        ends = self.ends
        return ends[1] - ends[0] if ends and len({value.source for value in self.trusted}) > 1 else None

    @property
    def decimals(self) -> int:
        """Decimals to show."""
        return max(len(value.value.partition(".")[2]) for value in self.values)


def find(literature: Literature, question: Question) -> list[Value]:
    """Return the printed numbers that a question asks for.

    Raises:
        UserError: nobody prints such a name, or no number is left; the message lists what is near.
    """
    found: Sequence[Value] = literature.values
    for kind, name in (("method", question.method), ("benchmark", question.benchmark), ("model", question.model)):
        if name is not None:
            printed = _printed_names(literature, kind, name)
            chosen = [value for value in found if getattr(value, kind) in printed]
            if not chosen:
                raise UserError(f"no paper prints {name!r} with {_others(question, kind)}; {_offer(found, kind)}")
            found = chosen
    chosen = [value for value in found if _has_budget(literature, value, question)]
    if not chosen:
        asked = f"{question.tokens:g} tokens" if question.tokens is not None else f"ratio {question.ratio:g}"
        raise UserError(f"no paper prints {asked} with {_others(question, 'budget')}; {_offer(found, 'budget')}")
    return chosen


def groups(literature: Literature, values: Iterable[Value]) -> list[Group]:
    """Return numbers by method and by what can be set side by side, in the order of their first source."""
    found: dict[tuple[str, ...], list[Value]] = {}
    for value in values:
        name = literature.names["method", value.method]
        found.setdefault((*value.group, name.like or value.method), []).append(value)
    return [Group(key[-1], tuple(each)) for key, each in found.items()]


def _printed_names(literature: Literature, kind: str, name: str) -> set[str]:
    """Return the printed names that a name of a user means."""
    asked, known, printed = name.casefold(), {}, set()
    for (of, each), meaning in literature.names.items():
        if of == kind:
            for alias in {each, meaning.like, *meaning.ours.split()} - {""}:
                known[alias.casefold()] = meaning.like or each
                if alias.casefold() == asked:
                    printed.add(each)
    if not printed:
        near = dict.fromkeys(known[each] for each in difflib.get_close_matches(asked, known, n=5, cutoff=0.5))
        offer = f"near: {', '.join(near)}" if near else f"printed are: {', '.join(sorted({*known.values()}))}"
        raise UserError(f"no paper here prints a {kind} {name!r}; {offer}")
    exact = {each for each in printed if asked in (each.casefold(), literature.names[kind, each].like.casefold())}
    return exact or printed


def _has_budget(literature: Literature, value: Value, question: Question) -> bool:
    """Return whether a number has the budget asked for."""
    table = literature.tables[value.row[:4]]
    if question.tokens is not None:
        return table.tokens(value.budget) == question.tokens
    if question.ratio is not None:
        ratio = table.ratio(value.budget)
        return ratio is not None and abs(ratio - question.ratio) < RATIO_TOLERANCE
    return True


def _others(question: Question, kind: str) -> str:
    """Return the conditions applied before this one."""
    order = ("method", "benchmark", "model", "budget")
    given = [getattr(question, name) for name in order[: order.index(kind)] if getattr(question, name) is not None]
    return " and ".join(map(repr, given)) or "anything"


def _offer(values: Iterable[Value], kind: str) -> str:
    """Return what the numbers so far would allow."""
    return "printed are: " + ", ".join(sorted({getattr(value, kind) for value in values}))
