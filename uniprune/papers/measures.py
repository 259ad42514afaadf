"""What a stored run says about a quantity that papers print.

| quantity | ours |
|---|---|
| score | headline score, mean over seeds, with its 95 % interval |
| average | mean over the benchmarks of the row |
| relative %, change % | score against the un-pruned run of the same set-up |
| average relative % | mean of relative % over the row |
| total s, prefill s, method s | sum over all rows of the benchmark |
| total ms, TTFT ms, TPOT ms | mean over rows; TTFT is all that happens before decoding, TPOT a decode step |
| visual tokens | mean of what enters the last decoder layer |
| … change, … speed-up, … before | against the un-pruned run |

Memory is no part of a run record, so quantities of it have no counterpart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from uniprune.papers.runs import Entry
from uniprune.records import DatasetRecord, Timing

Measure = Callable[[DatasetRecord], float | None]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Ours:
    """Our number.

    Attributes:
        value: the number, mean over seeds. interval: 95 %, or None where none is known.
        spread: standard deviation over seeds, None of one run. runs: how many. rows: rows of a run behind it.
    """

    value: float
    interval: Interval | None = None
    spread: float | None = None
    runs: int = 1
    rows: int = 0


def timed(measure: Callable[[Timing], float | None]) -> Measure:
    """A measure of the spans."""
    return lambda entry: measure(entry.timing) if entry.timing else None


def _step(timing: Timing) -> float | None:
    """Milliseconds per decode step; None where answers have one token."""
    steps = timing.rows * (timing.new_tokens - 1)
    return 1000 * timing.decode.total / steps if steps > 0 else None


DIRECT: dict[str, Measure] = {
    "score": lambda entry: entry.score.value if entry.score else None,
    "total s": timed(lambda timing: timing.total.total),
    "prefill s": timed(lambda timing: timing.prefill.total),
    "method s": timed(lambda timing: timing.method.total),
    "total ms": timed(lambda timing: 1000 * timing.total.total / timing.rows),
    "TTFT ms": timed(lambda timing: 1000 * (timing.total.total - timing.decode.total) / timing.rows),
    "TPOT ms": timed(_step),
    "visual tokens": lambda entry: entry.ledger.layers[-1] if entry.ledger else None,
}
"""Quantities of one run."""

AGAINST: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "relative %": ("score", lambda pruned, vanilla: 100 * pruned / vanilla),
    "change %": ("score", lambda pruned, vanilla: 100 * pruned / vanilla - 100),
    "total ms change": ("total ms", lambda pruned, vanilla: pruned - vanilla),
    "TTFT speed-up": ("TTFT ms", lambda pruned, vanilla: vanilla / pruned),
    "TPOT speed-up": ("TPOT ms", lambda pruned, vanilla: vanilla / pruned),
    "visual tokens before": ("visual tokens", lambda pruned, vanilla: vanilla),
}
"""Quantity -> what of a run it compares, and how, with the same of the un-pruned run."""

MEANS = {"average": "score", "average relative %": "relative %"}
"""Quantity -> what it is the mean of over a row."""


def direct(entries: Sequence[Entry], quantity: str) -> Ours | None:
    """A quantity of the runs of one set-up; None while some run has none.

    Over seeds the interval is the mean of the runs' intervals: they are about the same questions.
    """
    values = [DIRECT[quantity](entry) for _, entry in entries]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    intervals = [entry.score.interval if entry.score and quantity == "score" else None for _, entry in entries]
    pairs = [pair for pair in intervals if pair is not None]
    return Ours(
        value=fmean(known),
        interval=(fmean(low for low, _ in pairs), fmean(high for _, high in pairs))
        if len(pairs) == len(known)
        else None,
        spread=stdev(known) if len(known) > 1 else None,
        runs=len(known),
        rows=min(entry.answered for _, entry in entries),
    )


def against(pruned: Ours, vanilla: Ours, quantity: str) -> Ours | None:
    """A quantity that compares with the un-pruned run; None where that one is zero."""
    if not vanilla.value or not pruned.value:
        return None
    return replace(pruned, value=AGAINST[quantity][1](pruned.value, vanilla.value), interval=None, spread=None)


def mean(parts: Sequence[Ours]) -> Ours:
    """The mean over benchmarks; their errors are independent, so half-widths add in squares."""
    value = fmean(part.value for part in parts)
    halves = [(high - low) / 2 for low, high in (part.interval or (math.nan, math.nan) for part in parts)]
    half = math.hypot(*halves) / len(parts)
    return Ours(
        value=value,
        interval=None if math.isnan(half) else (value - half, value + half),
        runs=min(part.runs for part in parts),
        rows=sum(part.rows for part in parts),
    )
