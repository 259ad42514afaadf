"""Conditions of numbers on the leaderboard: the share of rows behind a score, batches and machines behind a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from uniprune.results.comparison import SeedGroup
from uniprune.results.records import DatasetRecord
from uniprune.results.table import CellValue, RowsCell

NAMED = 4
"""Benchmarks that one note names."""


def condition_cells(group: SeedGroup) -> dict[str, CellValue]:
    """Return the columns "rows", "batch" and "device" of a group.

    Batches and machines are those of all runs, the most rows first.
    """
    scored = [(entry.score.rows, entry) for entry in group.scores.values() if entry.score]
    known = [entry.whole for _, entry in scored if entry.whole is not None]
    whole = sum(known) if len(known) == len(scored) else None
    return {
        "rows": RowsCell(
            sum(rows for rows, _ in scored), whole, limited=any(_shortened(group, one) for _, one in scored)
        ),
        "batch": _joined(_batches(group.entries)),
        "device": _joined(_machines(group)),
    }


def condition_notes(groups: Sequence[SeedGroup], rows: Iterable[Mapping[str, CellValue]]) -> list[str]:
    """Return the notes on runs of the first rows only, and on the batches and machines of times.

    Args:
        groups: of one table.
        rows: of the table.
    """
    notes = limit_notes(groups)
    timed = [row for row in rows if row["total ms"] is not None]
    if not timed:
        return notes
    batches, machines = ({str(row[name] or "unknown") for row in timed} for name in ("batch", "device"))
    if len(batches) == len(machines) == 1:
        notes.append(f"Times: batch size {batches.pop()} on {machines.pop()}; batch TTFT is that of a whole batch.")
    else:
        notes.append(
            "Times compare at one batch size on one machine only (columns batch and device); batch TTFT is that of a "
            "whole batch."
        )
    return notes


def limit_notes(groups: Sequence[SeedGroup]) -> list[str]:
    """Return one note per `--limit`: the benchmarks it shortened, and how many lines of the table it concerns."""
    found: dict[int, dict[str, str]] = {}
    lines: dict[int, int] = {}
    for group in groups:
        limit, short = group.setup.limit, {n: one for n, one in group.scores.items() if _shortened(group, one)}
        if limit is None or not short:
            continue
        lines[limit] = lines.get(limit, 0) + 1
        for name, entry in short.items():
            if entry.score:
                found.setdefault(limit, {})[name] = str(RowsCell(entry.score.rows, entry.whole, limited=True))
    notes = []
    for limit, cells in found.items():
        each = [f"{name} {cell}" for name, cell in cells.items()]
        more = f" and {len(each) - NAMED} benchmarks more" * (len(each) > NAMED)
        share = "" if lines[limit] == len(groups) else f" in {lines[limit]} of {len(groups)} lines"
        notes.append(f"Not the whole benchmarks{share}: --limit {limit} ran {', '.join(each[:NAMED])}{more}.")
    return notes


def _shortened(group: SeedGroup, entry: DatasetRecord) -> bool:
    """Return whether a limit left out rows of a benchmark, as far as is known."""
    return group.setup.limit is not None and (entry.whole is None or entry.rows < entry.whole)


def _batches(entries: Iterable[DatasetRecord]) -> dict[str, int]:
    """Map batch sizes, with or without shared features, to rows."""
    found: dict[str, int] = {}
    for entry in entries:
        for size, rows in entry.batching.items():
            found[size] = found.get(size, 0) + rows
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _machines(group: SeedGroup) -> dict[str, int]:
    """Map machines to benchmarks that they ran; a processor is one with so many threads."""
    found: dict[str, int] = {}
    for entry in group.entries:
        for one in entry.environments:
            threads = f", {one.threads} thread" + "s" * (one.threads != 1)
            name = one.device + threads * (group.setup.device == "cpu")
            found[name] = found.get(name, 0) + 1
    return found


def _joined(names: Iterable[str]) -> str | None:
    """Return the names in one cell, None without any."""
    return "; ".join(names) or None
