"""How long runs will take, from the times of stored ones."""

from __future__ import annotations

from collections.abc import Sequence

from uniprune.records import RunRecord, Setup
from uniprune.sweep import Item


def forecast(item: Item, records: Sequence[RunRecord]) -> float | None:
    """Seconds of answering that are left of a run; None where no stored run of its model can tell.

    Every benchmark is taken at the time per row of the nearest stored one: the same benchmark before others, the same
    method before others, the nearest ratio. Loading, reading pictures and scoring come on top.
    """
    if item.setup is None or None in item.left.values():
        return None
    paces = {name: pace(item.setup, name, records) for name, rows in item.left.items() if rows}
    known = [seconds * (item.left[name] or 0) for name, seconds in paces.items() if seconds is not None]
    return sum(known) if len(known) == len(paces) else None


def pace(setup: Setup, benchmark: str, records: Sequence[RunRecord]) -> float | None:
    """Seconds per row of the stored run that is most like this one; None without one of the same model and kernel."""
    same = ("weights", "processor", "dtype", "attention", "device")
    near = [
        (name != benchmark, other.method.name != setup.method.name, abs(other.ratio - setup.ratio), entry.timing)
        for record in records
        for other in [record.setup]
        if all(getattr(other, field) == getattr(setup, field) for field in same)
        for name, entry in record.datasets.items()
        if entry.timing is not None
    ]
    if not near:
        return None
    timing = min(near, key=lambda one: one[:3])[3]
    return timing.total.total / timing.rows
