"""Quantities that papers print, measured in stored runs.

| quantity | ours |
|---|---|
| score | headline score, mean over seeds |
| average | mean over the benchmarks of the row |
| relative %, change % | score against the un-pruned run of the same set-up |
| average relative % | mean of relative % over the row |
| total s, prefill s, method s | sum over all rows of the benchmark |
| total ms | mean over rows |
| TTFT ms, TPOT ms | median over rows |
| GPU GB, peak MB | most memory in use during any batch, in GiB and MiB |
| visual tokens, visual tokens before | means of those that enter the last decoder layer, and of all |
| … change, … speed-up | against the un-pruned run; of times and memory at the same batch sizes on the same machine |

Scores and what follows from them have the intervals of the leaderboard; all others have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from uniprune.reports.papers.runs import Source, StoredRuns
from uniprune.results.measurements import Timing
from uniprune.results.records import DatasetRecord
from uniprune.results.speedup import timed_alike
from uniprune.results.statistics import Estimate, mean
from uniprune.results.table import ScoreCell

Measure = Callable[[DatasetRecord], float | None]


def timed(measure: Callable[[Timing], float | None]) -> Measure:
    """Return a measure of the time spans."""
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
"""Quantity -> quantity of a run, and its comparison with that of the un-pruned run."""

TIMES = ("total ms", "TTFT ms", "TPOT ms", "peak MB")
"""Quantities of runs that compare at one batch size on one machine only."""

MEANS = {"average": "score", "average relative %": "relative %"}
"""Quantity -> the quantity of which it is the mean over a row."""


def measured(sources: Sequence[Source], quantity: str, stored: StoredRuns) -> ScoreCell | None:
    """Return the mean of a quantity over benchmarks, with its interval and its spread over seeds.

    None unless every run has it, and the un-pruned run as well where it is compared with that.
    """
    each = [by_seed(source, quantity, stored) for source in sources]
    known = [values for values in each if values]
    if not known or len(known) < len(each):
        return None
    seeds = [fmean(values) for values in zip(*known, strict=False)]  # as many as every benchmark has
    spread = stdev(seeds) if len(seeds) > 1 else None
    estimates = [one for source in sources if (one := estimate(source, quantity, stored)) is not None]
    if len(estimates) < len(sources):
        return ScoreCell(fmean(seeds), None, spread)
    average = mean(estimates)
    return ScoreCell(average.value, average.interval(), spread)


def by_seed(source: Source, quantity: str, stored: StoredRuns) -> list[float] | None:
    """Return a quantity of every run of a group; None while some run lacks it, or where it would divide by zero."""
    base, against = AGAINST.get(quantity, (quantity, None))
    measure = DIRECT.get(base)
    values = [measure(entry) for entry in source.entries] if measure else []
    known = [value for value in values if value is not None]
    if len(known) < len(values) or against is None:
        return known if len(known) == len(values) else None
    baseline = stored.baseline(source)
    if base in TIMES and baseline and not _same_conditions(source, baseline):
        return None
    unpruned = by_seed(baseline, base, stored) if baseline else None
    try:
        return [against(value, fmean(unpruned)) for value in known] if unpruned else None
    except ZeroDivisionError:
        return None


def _same_conditions(source: Source, baseline: Source) -> bool:
    """Return whether runs and baseline had the same batch sizes on the same machine."""
    return all(timed_alike(entry, base) for entry in source.entries for base in baseline.entries)


def estimate(source: Source, quantity: str, stored: StoredRuns) -> Estimate | None:
    """Return the leaderboard's estimate of a quantity; None for quantities that are no scores."""
    if quantity == "score":
        return stored.comparison.score(source.group, source.benchmark)
    if AGAINST.get(quantity, ("",))[0] != "score":
        return None
    relative = stored.comparison.relative(source.group, [source.benchmark])
    return relative and (relative.shifted(-100) if quantity == "change %" else relative)
