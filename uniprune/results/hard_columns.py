"""Hard and easy rows on the leaderboard: columns, and notes on what they are and why some are empty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from uniprune.results.budgets import RULE
from uniprune.results.comparison import SeedGroup
from uniprune.results.hard_accuracy import PARTS, HardRows, NoReference
from uniprune.results.table import CellValue, PartCell


def hard_columns(hard: HardRows, groups: Sequence[SeedGroup]) -> list[str]:
    """Return the columns of these groups, four per benchmark; none if no run resizes images."""
    return [
        f"{name} {part}"
        for name in hard.benchmarks
        if any(name in group.scores and group.setup.method.kind not in ("none", "input") for group in groups)
        for part in PARTS
    ]


def hard_cells(hard: HardRows, group: SeedGroup) -> dict[str, CellValue]:
    """Return the cells of one group."""
    return {
        f"{name} {part}": PartCell(
            one.accuracy.value, one.accuracy.interval(), rows=one.rows, unanswered=one.unanswered
        )
        for name in hard.benchmarks
        for part, one in hard.scores(group, name).items()
        if one.accuracy is not None
    }


def hard_notes(hard: HardRows, groups: Sequence[SeedGroup]) -> list[str]:
    """Return the notes: on the columns, on the rows of each resized run that is used, and on empty columns."""
    used: dict[str, dict[str, SeedGroup]] = {}
    empty: dict[str, list[tuple[str, NoReference]]] = {}
    unanswered: list[str] = []
    for group in groups:
        for name in hard.benchmarks:
            reference = hard.reference(group, name)
            if isinstance(reference, SeedGroup):
                used.setdefault(reference.label, {})[name] = reference
                wrong = sum(one.unanswered for part, one in hard.scores(group, name).items() if part in PARTS[:2])
                unanswered += [f"{group.label} {wrong} of {name}"] * bool(wrong)
            elif reference is not None:
                empty.setdefault(group.label, []).append((name, reference))
    notes = [
        "hard, easy: mean credit on the rows that the image resized to the same measured budget answers wrong, and "
        "right (rows in parentheses); known: on those of them that the un-pruned model answers right. Compare methods "
        "with each other there, not with their scores: docs/statistics.md."
    ] * bool(used)
    notes += [
        f"Parted by {label}: {'; '.join(_sizes(hard, one, name) for name, one in names.items())}."
        for label, names in used.items()
    ]
    if unanswered:
        notes.append(f"Rows without an answer count as wrong there: {', '.join(unanswered)}.")
    if empty:
        reasons: dict[str, list[str]] = {}  # those of the same benchmarks and resized runs together
        for label, lacking in empty.items():
            own = _range(one.tokens for _, one in lacking if one.tokens is not None)
            reasons.setdefault(_where(lacking, hard), []).append(f"{label} ({own or 'none'})")
        each = "; ".join(f"{', '.join(labels)} {where}" for where, labels in reasons.items())
        notes.append(
            "No hard and easy rows, as the budget of every resized run, in visual tokens per layer, differs by "
            f"{RULE}: {each}."
        )
    return notes


def _sizes(hard: HardRows, reference: SeedGroup, name: str) -> str:
    """Return `pope 40 hard, 110 easy rows (30, 100 known)`."""
    parts = {part: len(rows) for part, rows in hard.parts(reference, name).items()}
    known = "no un-pruned run"
    if "hard known" in parts:
        sizes = [(parts[part], parts[f"{part} known"]) for part in PARTS[:2]]
        known = "all known" if all(all_ == own for all_, own in sizes) else f"{sizes[0][1]}, {sizes[1][1]} known"
    return f"{name} {parts['hard']} hard, {parts['easy']} easy rows ({known})"


def _where(lacking: Sequence[tuple[str, NoReference]], hard: HardRows) -> str:
    """Return `on pope, mme; resized 16.0`: the benchmarks, and the budgets of the resized runs."""
    names = [name for name, _ in lacking]
    where = f"all {len(names)} benchmarks" if len(names) > 2 and names == hard.benchmarks else ", ".join(names)
    others = _range(tokens for _, one in lacking for tokens in one.others)
    return f"on {where}; " + (f"resized {others}" if others else "no resized run with the same settings and rows")


def _range(values: Iterable[float]) -> str:
    """Return the different values in words, the first few of many."""
    texts = list(dict.fromkeys(f"{value:.1f}" for value in sorted(values)))
    return ", ".join(texts) if len(texts) < 5 else f"{texts[0]} to {texts[-1]}"
