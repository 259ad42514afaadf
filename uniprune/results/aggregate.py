"""What the stored answers of one benchmark add up to: timings and the token ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from uniprune.results.predictions import Prediction
from uniprune.results.records import Flops, Quantity, Timing, TokenLedger

SPANS = ("vision", "projector", "method", "prefill", "decode", "total")


def timing(answers: Iterable[Prediction]) -> Timing | None:
    """Medians, quartile distances and totals of every span. None when nothing was measured."""
    measured = [answer for answer in answers if answer.spans is not None]
    if not measured:
        return None
    spans = {name: quantity([answer.spans[name] for answer in measured if answer.spans]) for name in SPANS}
    first = [answer.ttft for answer in measured if answer.ttft is not None]
    further = [answer.tpot for answer in measured if answer.tpot is not None]
    peaks = [answer.peak_bytes for answer in measured if answer.peak_bytes is not None]
    return Timing(
        **spans,
        ttft=quantity(first) if first else None,
        tpot=quantity(further) if further else None,
        peak_mib=max(peaks) / 2**20 if peaks else None,
        new_tokens=float(np.mean([answer.new_tokens or 0 for answer in measured])),
        batch_size=float(np.mean([answer.batch for answer in measured])),
        rows=len(measured),
    )


def quantity(seconds: Sequence[float]) -> Quantity:
    """Distribution of a span over rows."""
    low, median, high = np.percentile(seconds, [25, 50, 75]) * 1000
    return Quantity(median=float(median), iqr=float(high - low), total=float(np.sum(seconds)))


def ledger(answers: Iterable[Prediction]) -> TokenLedger | None:
    """Means over rows with images: tokens per layer against what the budget asked, operations, cache.

    None without such rows. Answers without a requested average are those of adaptive methods, which cannot miss it.
    """
    rows = [answer for answer in answers if answer.visual_tokens and any(answer.visual_tokens)]
    if not rows:
        return None
    tokens = np.array([answer.visual_tokens for answer in rows])
    layers = tokens.mean(axis=0)
    pairs = [(measured, answer.requested) for measured, answer in zip(tokens.mean(axis=1), rows, strict=True)]
    flops = [answer.flops for answer in rows if answer.flops is not None]
    return TokenLedger(
        layers=layers.tolist(),
        average=float(layers.mean()),
        requested=_mean([requested for _, requested in pairs]),
        flagged=any(requested is not None and abs(measured - requested) > 1 for measured, requested in pairs),
        adaptive=any(requested is None for _, requested in pairs),
        initial=_mean([answer.initial for answer in rows]),
        text=_mean([answer.text_tokens for answer in rows]),
        flops=mean_flops(flops) if len(flops) == len(rows) else None,
        kv_bytes=_mean([answer.kv_bytes for answer in rows]),
    )


def mean_flops(each: Sequence[Flops]) -> Flops:
    """Part by part, of at least one."""
    return Flops(**{part: float(np.mean([getattr(one, part) for one in each])) for part in Flops.model_fields})


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of values that are all known, else None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
