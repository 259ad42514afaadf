"""Progress of stored runs, read from their folder: what is scored, what is being written, what stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from uniprune.evaluation.config import RunSpec
from uniprune.results.predictions import parts, stored_rows
from uniprune.results.records import RunRecord
from uniprune.results.store import Store

FRESH = 120.0
"""Seconds after the last stored batch in which an unfinished run counts as running."""


@dataclass(frozen=True)
class RunProgress:
    """Progress of one run.

    Attributes:
        label: model, method, ratio and seed.
        identity: of the run.
        state: "scored": all that was begun is; "running": rows were stored in the last two minutes; else "stopped".
        scored: benchmarks with a score.
        begun: benchmarks with a record.
        stored: rows stored.
        rows: rows of the benchmarks begun.
        idle: seconds since the last row was stored; None without any.
        left: seconds for the other rows, at the pace of the stored ones; None if no row is timed.
    """

    label: str
    identity: str
    state: Literal["scored", "running", "stopped"]
    scored: int
    begun: int
    stored: int
    rows: int
    idle: float | None
    left: float | None


def progress(store: Store, records: Sequence[RunRecord]) -> list[RunProgress]:
    """Return the progress of runs: those that stopped first, then those that are running."""
    order = ("stopped", "running", "scored")
    return sorted((_progress(store, record) for record in records), key=lambda one: order.index(one.state))


def not_begun(cells: Sequence[RunSpec], records: Sequence[RunRecord]) -> list[str]:
    """Return the runs of a grid, by name, of which nothing is stored.

    Models, methods, ratios, seeds, protocols and limits are compared by name; that needs no checkpoint.
    """
    known = {
        (
            *(one.model.name, one.setup.method.name, round(one.setup.ratio, 6), one.setup.protocol, one.setup.limit),
            one.setup.seed if any(one.random) else None,
        )
        for one in records
    }
    found = []
    for cell in cells:
        choice = cell.choice
        key = (cell.model, choice.name, round(choice.ratio, 6), cell.protocol, cell.limit)
        if not any((*key, seed) in known for seed in (choice.seed, None)):
            found.append(f"{cell.model} {choice.label}")
    return list(dict.fromkeys(found))


def _progress(store: Store, record: RunRecord) -> RunProgress:
    """Return the progress of one run."""
    files = {name: store.answers(record.identity, name) for name in record.datasets}
    stored = {name: stored_rows(path) for name, path in files.items()}
    changes = [file.stat().st_mtime for path in files.values() for file in (path, *parts(path)) if file.exists()]
    idle = time.time() - max(changes) if changes else None
    open_ = [name for name, one in record.datasets.items() if one.score is None and not one.unscorable]
    timed = [one.timing for one in record.datasets.values() if one.timing is not None]
    pace = sum(one.total.total for one in timed) / sum(one.rows for one in timed) if timed else None
    left = sum(max(record.datasets[name].rows - stored[name], 0) for name in open_)
    setup = record.setup
    seed = f" seed {setup.seed}" * any(record.random)
    return RunProgress(
        label=f"{record.model.name} {setup.method.name} {setup.ratio:g}{seed}",
        identity=record.identity,
        state="scored" if not open_ else "running" if idle is not None and idle < FRESH else "stopped",
        scored=len(record.datasets) - len(open_),
        begun=len(record.datasets),
        stored=sum(stored.values()),
        rows=sum(one.rows for one in record.datasets.values()),
        idle=idle,
        left=None if pace is None else pace * left,
    )
