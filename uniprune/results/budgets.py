"""Measured budgets: which methods spend the same number of visual tokens, so that their scores can be ranked.

The ratio is nominal. Before layer 0 it holds in every layer, before layer K only from there on, and adaptive methods
choose their own number: at one ratio, the average over layers differs several times. So neither ratio nor protocol says
which runs are rivals; what was measured does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from uniprune.results.comparison import SeedGroup, scored
from uniprune.utils.hashing import stable_hash

TOKENS, SHARE = 1.0, 0.02
"""Budgets agree within so many visual tokens per layer, or this share of the larger one, whichever allows more."""
ROUNDING = 1e-6

RULE = f"more than {TOKENS:g} token or {100 * SHARE:g} %"


@dataclass(frozen=True)
class BudgetGroup:
    """Groups of runs that are ranked together.

    Attributes:
        members: at least one.
        low: fewest visual tokens per layer of any; None if the one member has no measured budget.
        high: most such.
    """

    members: tuple[SeedGroup, ...]
    low: float | None
    high: float | None

    @property
    def span(self) -> str:
        """Visual tokens per layer in words: `16.0`, `31.0 to 31.5`, or `not measured`."""
        if self.low is None:
            return "not measured"
        ends = dict.fromkeys(f"{end:.1f}" for end in (self.low, self.high))
        return " to ".join(ends)


def visual_tokens(group: SeedGroup, names: Collection[str] | None = None) -> float | None:
    """Return the measured visual tokens per layer: the mean over all layers and rows with images; None without any.

    Args:
        group: the runs.
        names: benchmarks; None for all that were scored.
    """
    known = [
        (entry.ledger.average, entry.answered)
        for run in group.runs
        for name, entry in scored(run).items()
        if name in group.scores and (names is None or name in names) and entry.ledger and entry.answered
    ]
    return sum(average * rows for average, rows in known) / sum(rows for _, rows in known) if known else None


def measured(group: SeedGroup, names: Collection[str] | None = None) -> frozenset[str]:
    """Return the benchmarks whose visual tokens every run of a group has measured; none if its runs differ in them.

    Budgets compare on the same benchmarks only: a mean that lacks one is about other images.
    """
    wanted = [name for name in group.scores if names is None or name in names]
    found = {frozenset(name for name in wanted if run.datasets[name].ledger) for run in group.runs}
    return found.pop() if len(found) == 1 else frozenset()


def agree(one: float | None, other: float | None) -> bool:
    """Return whether two budgets are equal; one that was not measured equals none."""
    return one is not None and other is not None and max(one, other) <= most(min(one, other))


def most(budget: float) -> float:
    """Return the largest budget that agrees with one."""
    return max(budget + TOKENS, budget / (1 - SHARE)) + ROUNDING


def windows(values: Sequence[float], upper: Callable[[float], float]) -> list[list[int]]:
    """Part numbers so that all of a part agree with its smallest; return the places of each part's, the largest first.

    A part starts at a number and holds all larger ones up to `upper` of it, so that 16.0, 16.9 and 17.8 do not become
    one by steps. The start with the most members is taken first, of equally many the smallest number; the rest is
    parted again. The parts follow from the numbers alone, not from their order, and equal numbers are in one part.
    """
    left = sorted(range(len(values)), key=lambda i: values[i])
    parts = []
    while left:
        ordered = [values[i] for i in left]
        ends = [bisect_right(ordered, upper(value)) for value in ordered]
        first = max(range(len(left)), key=lambda n: (ends[n] - n, -n))
        parts.append(sorted(left[first : ends[first]]))
        del left[first : ends[first]]
    return parts


def equal_budgets(groups: Sequence[SeedGroup], names: Collection[str] | None = None) -> list[BudgetGroup]:
    """Part groups by their measured budget (see `windows`); one without is a part of its own.

    So is one that lacks the budget of a benchmark of which another group has it.
    """
    benchmarks = [measured(group, names) for group in groups]
    everywhere = frozenset[str]().union(*benchmarks)
    known = [
        (group, visual_tokens(group, own)) for group, own in zip(groups, benchmarks, strict=True) if own == everywhere
    ]
    alike = [(group, tokens) for group, tokens in known if tokens is not None]
    parts = []
    for part in windows([tokens for _, tokens in alike], most):
        spent = [alike[i][1] for i in part]
        parts.append(BudgetGroup(tuple(alike[i][0] for i in part), min(spent), max(spent)))
    placed = {id(group) for group, _ in alike}
    return parts + [BudgetGroup((group,), None, None) for group in groups if id(group) not in placed]


def budget_groups(
    groups: Iterable[SeedGroup],
    names: Collection[str] | None = None,
    key: Callable[[SeedGroup], object] = lambda group: (group.settings, group.questions),
) -> list[BudgetGroup]:
    """Return the pruned, scored groups of equal settings, questions and budget together.

    Args:
        groups: of any models; un-pruned ones are in no group.
        names: benchmarks whose budgets count; None for all that were scored.
        key: what else groups share that are compared.
    """
    found: dict[object, list[SeedGroup]] = defaultdict(list)
    for group in groups:
        if group.scores and group.setup.method.kind != "none":
            found[key(group)].append(group)
    return [part for alike in found.values() for part in equal_budgets(alike, names)]


def decisions(group: SeedGroup) -> str:
    """Return a hash that groups share which must have the same predictions: only ratio or protocol are other words.

    Before layer 0 both protocols give the same choice.
    """
    setups = [run.setup.model_dump(mode="json", exclude={"ratio", "protocol"}) for run in group.runs]
    return stable_hash(setups)


def distinct(groups: Iterable[SeedGroup]) -> list[SeedGroup]:
    """Return the groups, of several with the same decisions only the one of the smallest identity."""
    found: dict[str, SeedGroup] = {}
    for group in groups:
        known = found.setdefault(decisions(group), group)
        if group.runs[0].identity < known.runs[0].identity:
            found[decisions(group)] = group
    return list(found.values())


def budget_notes(parts: Iterable[BudgetGroup]) -> list[str]:
    """Return which methods are not compared with each other: the same ratio left them other budgets, or none is known.

    Args:
        parts: the groups of a table, from `budget_groups`.
    """
    found: dict[object, list[tuple[BudgetGroup, SeedGroup]]] = defaultdict(list)
    unknown: dict[str, list[SeedGroup]] = defaultdict(list)
    for part in parts:
        for group in part.members:
            if part.low is None:
                unknown[group.runs[0].model.name].append(group)
            else:
                setup = group.setup
                place = group.settings, group.questions, setup.ratio, setup.protocol
                found[place].append((part, group))
    notes = [_apart(alike) for alike in found.values() if len({id(part) for part, _ in alike}) > 1]
    for model, alone in unknown.items():
        names = ", ".join(dict.fromkeys(f"{group.setup.method.name} {group.setup.ratio:g}" for group in alone))
        notes.append(
            f"{model}: neither ranked nor tested, because visual tokens were not measured, or not on every benchmark "
            f"that others have them of (benchmarks without images, records without a ledger): {names}."
        )
    return notes


def _apart(alike: Sequence[tuple[BudgetGroup, SeedGroup]]) -> str:
    """Return the note on groups of one nominal ratio that are in several parts."""
    members: dict[int, list[SeedGroup]] = defaultdict(list)
    spans = {id(part): part.span for part, _ in alike}
    for part, group in alike:
        members[id(part)].append(group)
    each = "; ".join(
        f"{', '.join(sorted({group.setup.method.name for group in some}))} ({spans[part]} tokens)"
        for part, some in members.items()
    )
    group = alike[0][1]
    protocol = "" if group.setup.protocol == "average" else "; --protocol average makes equal budgets"
    return (
        f"{group.runs[0].model.name}, ratio {group.setup.ratio:g}: ranked and tested apart, because their visual "
        f"tokens per layer differ by {RULE}: {each}{protocol}."
    )
