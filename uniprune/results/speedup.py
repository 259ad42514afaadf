"""Net speed-up of stored runs: what pruning gains in the prefill after its own cost, beside what FLOPs would allow."""

from __future__ import annotations

from typing import NamedTuple

from uniprune.results.comparison import SeedGroup, same_rows
from uniprune.results.records import DatasetRecord

Pair = tuple[DatasetRecord, DatasetRecord]


class NetSpeedup(NamedTuple):
    """Gain of a method.

    Attributes:
        value: un-pruned prefill / (prefill + method).
        ceiling: FLOPs of the un-pruned language model / those left; None if some were not counted.
        tower: whether both include vision tower and projector, as the tower had less to do, too.
    """

    value: float
    ceiling: float | None
    tower: bool = False

    @property
    def share(self) -> float | None:
        """Percent of the ceiling that is reached."""
        return None if self.ceiling is None else 100 * self.value / self.ceiling


def net_speedup(group: SeedGroup, baseline: SeedGroup | None) -> NetSpeedup | None:
    """Return the net speed-up of a group, from the medians of its benchmarks weighted by rows.

    None for the un-pruned model, without a baseline, and unless every benchmark was timed for both on the same rows.
    See `untimed` for times that do not compare.
    """
    pairs = _pairs(group, baseline)
    if not pairs or any(not timed_alike(*pair) for pair in pairs):
        return None
    tower = any(_spares_tower(*pair) for pair in pairs)
    spans = ("vision", "projector", "prefill") if tower else ("prefill",)
    before = after = 0.0
    for ours, base in pairs:
        if ours.timing is None or base.timing is None:
            return None
        before += ours.rows * sum(getattr(base.timing, span).median for span in spans)
        after += ours.rows * sum(getattr(ours.timing, span).median for span in (*spans, "method"))
    return NetSpeedup(before / after, _ceiling(pairs, tower), tower)


def untimed(group: SeedGroup, baseline: SeedGroup | None) -> str | None:
    """Return a note if the group and its baseline were timed, but on other machines or in other batches."""
    pairs = _pairs(group, baseline)
    if all(timed_alike(*pair) for pair in pairs) or any(one.timing is None for pair in pairs for one in pair):
        return None
    return f"No net speed-up of {group.label}: the un-pruned model was timed on another machine or in other batches."


def _pairs(group: SeedGroup, baseline: SeedGroup | None) -> list[Pair]:
    """Return the benchmarks of every run with those of the baseline; none if it lacks one."""
    if baseline is None or group.setup.method.kind == "none":
        return []
    base = baseline.scores
    entries = [(name, run.datasets[name]) for run in group.runs for name in group.scores]
    if any(name not in base or not same_rows(entry, base[name]) for name, entry in entries):
        return []
    return [(entry, base[name]) for name, entry in entries]


def timed_alike(ours: DatasetRecord, base: DatasetRecord) -> bool:
    """Return whether times compare: one machine, the same batches."""
    machines = [{(one.device, one.threads) for one in entry.environments} for entry in (ours, base)]
    return machines[0] == machines[1] and len(machines[0]) <= 1 and ours.batching == base.batching


def _spares_tower(ours: DatasetRecord, base: DatasetRecord) -> bool:
    """Return whether the vision tower had fewer operations than that of the un-pruned model, on the same rows."""
    flops = [one.ledger.flops if one.ledger else None for one in (ours, base)]
    if flops[0] is None or flops[1] is None or ours.answered != base.answered:
        return False
    return flops[0].vision < flops[1].vision


def _ceiling(pairs: list[Pair], tower: bool) -> float | None:
    """Return the quotient of the FLOPs of the language model, or of all, weighted by answered rows.

    None if some were not counted.
    """
    before = after = 0.0
    for ours, base in pairs:
        flops = [one.ledger.flops if one.ledger else None for one in (base, ours)]
        if flops[0] is None or flops[1] is None:
            return None
        before += ours.answered * (flops[0].total if tower else flops[0].llm)
        after += ours.answered * (flops[1].total if tower else flops[1].llm)
    return before / after if after else None
