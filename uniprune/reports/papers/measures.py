"""What a stored run says about a quantity that papers print.

| quantity | ours |
|---|---|
| score | headline score, mean over seeds, with its 95 % interval |
| average | mean over the benchmarks of the row |
| relative %, change % | score against the un-pruned run of the same set-up |
| average relative % | mean of relative % over the row |
| total s, prefill s, method s | sum over all rows of the benchmark |
| total ms | mean over rows |
| TTFT ms, TPOT ms | median over rows |
| GPU GB, peak MB | most memory in use during any batch, in GiB and MiB |
| visual tokens, visual tokens before | means of those that enter the last decoder layer, and of all |
| … change, … speed-up | against the un-pruned run |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from uniprune.reports.papers.runs import Entry
from uniprune.results.records import DatasetRecord, ScoreRecord, Timing

Measure = Callable[[DatasetRecord], float | None]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Ours:
    """Our number.

    Attributes:
        values: the number in every run of the set-up; several where runs differ in their seed.
        rows: rows of a run behind it. interval: 95 %, or None where none is known.
    """

    values: tuple[float, ...]
    rows: int
    interval: Interval | None = None

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, None of one run."""
        return stdev(self.values) if len(self.values) > 1 else None


def timed(measure: Callable[[Timing], float | None]) -> Measure:
    """A measure of the spans."""
    return lambda entry: measure(entry.timing) if entry.timing else None


DIRECT: dict[str, Measure] = {
    "score": lambda entry: entry.score.value if entry.score else None,
    "total s": timed(lambda timing: timing.total.total),
    "prefill s": timed(lambda timing: timing.prefill.total),
    "method s": timed(lambda timing: timing.method.total),
    "total ms": timed(lambda timing: 1000 * timing.total.total / timing.rows),
    "TTFT ms": timed(lambda timing: timing.ttft.median if timing.ttft else None),
    "TPOT ms": timed(lambda timing: timing.tpot.median if timing.tpot else None),
    "GPU GB": timed(lambda timing: timing.peak_mib / 1024 if timing.peak_mib else None),
    "peak MB": timed(lambda timing: timing.peak_mib),
    "visual tokens": lambda entry: entry.ledger.layers[-1] if entry.ledger else None,
    "visual tokens before": lambda entry: entry.ledger.initial if entry.ledger else None,
}
"""Quantities of one run."""

AGAINST: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "relative %": ("score", lambda pruned, vanilla: 100 * pruned / vanilla),
    "change %": ("score", lambda pruned, vanilla: 100 * pruned / vanilla - 100),
    "total ms change": ("total ms", lambda pruned, vanilla: pruned - vanilla),
    "TTFT speed-up": ("TTFT ms", lambda pruned, vanilla: vanilla / pruned),
    "TPOT speed-up": ("TPOT ms", lambda pruned, vanilla: vanilla / pruned),
    "peak MB change": ("peak MB", lambda pruned, vanilla: pruned - vanilla),
}
"""Quantity -> what of a run it compares, and how, with the same of the un-pruned run."""

MEANS = {"average": "score", "average relative %": "relative %"}
"""Quantity -> what it is the mean of over a row."""


def direct(entries: Sequence[Entry], quantity: str) -> Ours | None:
    """A quantity of the runs of one set-up; None while some run has none.

    Over seeds the interval is the mean of the runs' intervals: they are about the same questions.
    """
    values = [DIRECT[quantity](entry) for _, entry in entries]
    known = tuple(value for value in values if value is not None)
    if not known or len(known) < len(values):
        return None
    scores = [entry.score for _, entry in entries if entry.score] if quantity == "score" else []
    ends = [ends for score in scores if (ends := of_headline(score))]
    interval = (fmean(low for low, _ in ends), fmean(high for _, high in ends)) if len(ends) == len(known) else None
    return Ours(known, min(entry.answered for _, entry in entries), interval)


def of_headline(score: ScoreRecord) -> Interval | None:
    """The interval, if it is one of the headline score."""
    return score.interval if score.interval_of == "headline" else None


def against(pruned: Ours, vanilla: Ours, quantity: str) -> Ours | None:
    """A quantity that compares with the un-pruned run; None where it would divide by zero."""
    try:
        values = tuple(AGAINST[quantity][1](value, vanilla.value) for value in pruned.values)
    except ZeroDivisionError:
        return None
    return Ours(values, pruned.rows)


def mean(parts: Sequence[Ours]) -> Ours:
    """The mean over benchmarks, seed by seed; their errors are independent, so half-widths add in squares."""
    runs = min(len(part.values) for part in parts)
    values = tuple(fmean(part.values[run] for part in parts) for run in range(runs))
    ends = [part.interval for part in parts if part.interval]
    half = math.hypot(*((high - low) / 2 for low, high in ends)) / len(parts)
    interval = (fmean(values) - half, fmean(values) + half) if len(ends) == len(parts) else None
    return Ours(values, sum(part.rows for part in parts), interval)
