"""Measured budgets: which methods spend the same number of visual tokens, so that their scores can be ranked.

The ratio is nominal. Before layer 0 it holds in every layer, before layer K only from there on, and adaptive methods
choose their own number: at one ratio, the average over layers differs several times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence

from uniprune.results.comparison import SeedGroup, scored

TOKENS, SHARE = 1.0, 0.02
"""Budgets agree within so many visual tokens per layer, or this share of the larger one, whichever allows more."""
ROUNDING = 1e-6

RULE = f"more than {TOKENS:g} token or {100 * SHARE:g} %"


def visual_tokens(group: SeedGroup, names: Collection[str] | None = None) -> float | None:
    """Return the measured visual tokens per layer: the mean over all layers and rows with images; None without any.

    Args:
        group: the runs.
        names: benchmarks; None for all that were scored.
    """
    entries = [scored(run)[name] for run in group.runs for name in scored(run) if names is None or name in names]
    known = [(entry.ledger.average, entry.answered) for entry in entries if entry.ledger and entry.answered]
    return sum(average * rows for average, rows in known) / sum(rows for _, rows in known) if known else None


def agree(one: float | None, other: float | None) -> bool:
    """Return whether two budgets are equal; rows without images have none, and equal each other."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= max(TOKENS, SHARE * max(one, other)) + ROUNDING


def equal_budgets(groups: Sequence[SeedGroup], names: Collection[str] | None = None) -> list[list[SeedGroup]]:
    """Part groups by their budget, so that all of a part agree with each other; the largest part comes first.

    A part starts at a budget and holds all that agree with it and are not smaller, so that 16.0, 16.9 and 17.8 do not
    become one by steps. The start with the most members is taken first, of equally many the smallest budget.
    """
    left = sorted(((visual_tokens(group, names), i) for i, group in enumerate(groups)), key=lambda pair: pair[0] or 0.0)
    parts = []
    while left:
        windows = [[pair for pair in left[first:] if agree(left[first][0], pair[0])] for first in range(len(left))]
        largest = max(windows, key=len)
        parts.append([groups[i] for i in sorted(i for _, i in largest)])
        left = [pair for pair in left if pair not in largest]
    return parts


def fields(
    groups: Iterable[SeedGroup], key: Callable[[SeedGroup], object], names: Collection[str] | None = None
) -> list[list[SeedGroup]]:
    """Return the groups of equal key and equal budget together."""
    found: dict[object, list[SeedGroup]] = defaultdict(list)
    for group in groups:
        found[key(group)].append(group)
    return [part for alike in found.values() for part in equal_budgets(alike, names)]


def site(group: SeedGroup) -> object:
    """Return what methods have in common that are compared: settings, ratio and protocol."""
    return group.settings, group.setup.ratio, group.setup.protocol


def budget_notes(groups: Iterable[SeedGroup]) -> list[str]:
    """Return which methods are not compared with each other, because the same ratio left them other budgets."""
    found: dict[object, list[SeedGroup]] = defaultdict(list)
    for group in groups:
        if group.scores and group.setup.method.kind != "none":
            found[site(group)].append(group)
    notes = []
    for alike in found.values():
        parts = equal_budgets(alike)
        if len(parts) > 1:
            setup = alike[0].setup
            protocol = "" if setup.protocol == "average" else "; --protocol average makes equal budgets"
            notes.append(
                f"{alike[0].runs[0].model.name}, ratio {setup.ratio:g}: ranked and tested apart, because their visual "
                f"tokens per layer differ by {RULE}: {'; '.join(map(_named, parts))}{protocol}."
            )
    return notes


def _named(part: Sequence[SeedGroup]) -> str:
    """Return `divprune, fastv (16.0 tokens)`."""
    names = ", ".join(dict.fromkeys(group.setup.method.name for group in part))
    tokens = [tokens for group in part if (tokens := visual_tokens(group)) is not None]
    if not tokens:
        return f"{names} (no images)"
    low, high = f"{min(tokens):.1f}", f"{max(tokens):.1f}"
    return f"{names} ({low} tokens)" if low == high else f"{names} ({low} to {high} tokens)"
