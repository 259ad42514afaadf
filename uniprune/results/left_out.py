"""Notes on rows left out of scores: how many, and which runs left out others than the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from uniprune.results.comparison import SeedGroup, rows_key
from uniprune.results.records import DatasetRecord


def left_out_notes(groups: Sequence[SeedGroup], benchmarks: Collection[str] | None = None) -> list[str]:
    """Return how many rows the scores of these groups lack, and which groups lack other rows than the rest.

    Args:
        groups: of one table.
        benchmarks: those of the table; None for all.
    """
    alike, notes = [], []
    for name in dict.fromkeys(name for group in groups for name in group.scores):
        if benchmarks is not None and name not in benchmarks:
            continue
        lacking: dict[tuple[str, ...], list[SeedGroup]] = defaultdict(list)
        for group in groups:
            if name in group.scores:
                lacking[rows_key(group.scores[name])].append(group)
        counts = {rows: _lacking(members[0].scores[name]) for rows, members in lacking.items()}
        if len({rows[:2] for rows in lacking}) < len(lacking):
            each = "; ".join(f"{counts[rows]} by {_labels(members)}" for rows, members in lacking.items())
            notes.append(
                f"{name}: different rows are left out ({each}), which makes different questions: these scores are "
                "ranked apart, and neither tested against each other nor used as baselines. record.json gives the "
                f"reasons; once they are mended, delete the lines of these rows in {name}.jsonl and run them again."
            )
        elif any(group.scores[name].faulty for members in lacking.values() for group in members):
            alike.append(f"{name} {', '.join(dict.fromkeys(counts.values()))}")
    if alike:
        rows = "; ".join(alike)
        notes.insert(0, f"Left out, because they, or rows scored with them, could not be asked: {rows} (record.json).")
    return notes


def _lacking(entry: DatasetRecord) -> str:
    """Return `3 of 20 rows`: those left out, of those in the file."""
    return f"{len(entry.faulty)} of {entry.rows - entry.left_out + len(entry.faulty)} rows"


def _labels(groups: Sequence[SeedGroup]) -> str:
    """Return the labels of some groups, the first few of many."""
    labels = list(dict.fromkeys(group.label for group in groups))
    return ", ".join(labels[:4]) + f" and {len(labels) - 4} more" * (len(labels) > 4)
