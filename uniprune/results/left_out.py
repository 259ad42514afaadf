"""Notes on rows that are in no score: how many, and which runs left out others than the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from uniprune.results.comparison import SeedGroup, rows_key, scored
from uniprune.results.records import DatasetRecord

Rows = tuple[str, ...]


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
        by_rows: dict[Rows, list[SeedGroup]] = defaultdict(list)
        for group in groups:
            if name in group.scores:
                by_rows[rows_key(group.scores[name])].append(group)
        lacking = {rows: _lacking(members[0].scores[name]) for rows, members in by_rows.items()}
        if len({rows[:2] for rows in by_rows}) < len(by_rows):
            notes.append(_different(name, by_rows, lacking))
        elif any(members[0].scores[name].faulty for members in by_rows.values()):
            alike.append(f"{name} {', '.join(dict.fromkeys(lacking.values()))}")
        notes += [note for members in by_rows.values() if (note := _unread(name, members))]
    if alike:
        rows = "; ".join(alike)
        notes.insert(
            0, f"Left out, because they, or rows scored with them, could not be asked: {rows} (*.record.json)."
        )
    return notes


def _different(name: str, by_rows: Mapping[Rows, Sequence[SeedGroup]], lacking: Mapping[Rows, str]) -> str:
    """Return the note on groups that left out different rows of a benchmark."""
    each = "; ".join(f"{lacking[rows]} by {_labels(members)}" for rows, members in by_rows.items())
    return (
        f"{name}: different rows are left out ({each}), which makes different questions: these scores are ranked "
        f"apart, and neither tested against each other nor used as baselines. {name}.record.json gives the reasons; "
        f"once they are mended, delete the lines of these rows in {name}.jsonl and run them again."
    )


def _unread(name: str, groups: Sequence[SeedGroup]) -> str | None:
    """Return the note on groups with the same rows of which different items have a credit; None for none.

    Only a judge's grading that cannot be read leaves an item without one.
    """
    scores = [(group, scored(run)[name].score) for group in groups for run in group.runs]
    known = [(group, score) for group, score in scores if score is not None]
    if len({frozenset(score.per_item) for _, score in known}) < 2:
        return None
    each = ", ".join(f"{score.unparsed} of {score.rows} rows of {group.label}" for group, score in known)
    return f"{name}: the judge's gradings of different rows could not be read and are in no mean ({each})."


def _lacking(entry: DatasetRecord) -> str:
    """Return `3 of 20 rows`: those left out, of those in the file."""
    return f"{len(entry.faulty)} of {entry.rows - entry.left_out + len(entry.faulty)} rows"


def _labels(groups: Sequence[SeedGroup]) -> str:
    """Return the labels of some groups, the first few of many."""
    labels = list(dict.fromkeys(group.label for group in groups))
    return ", ".join(labels[:4]) + f" and {len(labels) - 4} more" * (len(labels) > 4)
