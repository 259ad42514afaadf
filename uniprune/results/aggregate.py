"""Timings, batching and token ledger of one benchmark, from its stored predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from uniprune.results.measurements import Flops, Quantity, Timing, TokenLedger
from uniprune.results.predictions import Prediction
from uniprune.results.spans import SPANS


def timing(predictions: Iterable[Prediction]) -> Timing | None:
    """Return medians, quartile distances and totals of every span; None if nothing was timed."""
    timed = [one for one in predictions if one.spans is not None]
    if not timed:
        return None
    spans = {name: quantity([one.spans[name] for one in timed if one.spans]) for name in SPANS}
    ttft = [one.ttft for one in timed if one.ttft is not None]
    tpot = [one.tpot for one in timed if one.tpot is not None]
    peaks = [one.peak_bytes for one in timed if one.peak_bytes is not None]
    return Timing(
        **spans,
        ttft=quantity(ttft) if ttft else None,
        tpot=quantity(tpot) if tpot else None,
        peak_mib=max(peaks) / 2**20 if peaks else None,
        new_tokens=float(np.mean([one.new_tokens or 0 for one in timed])),
        batch_size=float(np.mean([one.batch for one in timed])),
        rows=len(timed),
    )


def batching(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Return batch size, with or without shared features -> rows that were answered so, the most rows first."""
    return dict(Counter(one.batching for one in predictions if one.batching is not None).most_common())


def quantity(seconds: Sequence[float]) -> Quantity:
    """Return the distribution of a span over rows."""
    low, median, high = np.percentile(seconds, [25, 50, 75]) * 1000
    return Quantity(median=float(median), iqr=float(high - low), total=float(np.sum(seconds)))


def ledger(predictions: Iterable[Prediction]) -> TokenLedger | None:
    """Return means over rows with images: tokens per layer against the budget, operations, cache; None without any.

    Predictions without a requested average are those of adaptive methods, which cannot miss it.
    """
    rows = [one for one in predictions if one.visual_tokens and any(one.visual_tokens)]
    if not rows:
        return None
    tokens = np.array([one.visual_tokens for one in rows])
    layers = tokens.mean(axis=0)
    pairs = [(measured, one.requested) for measured, one in zip(tokens.mean(axis=1), rows, strict=True)]
    flops = [one.flops for one in rows if one.flops is not None]
    return TokenLedger(
        layers=layers.tolist(),
        average=float(layers.mean()),
        requested=_mean([requested for _, requested in pairs]),
        flagged=any(requested is not None and abs(measured - requested) > 1 for measured, requested in pairs),
        adaptive=any(requested is None for _, requested in pairs),
        initial=_mean([one.initial for one in rows]),
        text=_mean([one.text_tokens for one in rows]),
        frames=_mean([one.frames for one in rows]),
        flops=mean_flops(flops) if len(flops) == len(rows) else None,
        kv_bytes=_mean([one.kv_bytes for one in rows]),
    )


def mean_flops(flops: Sequence[Flops]) -> Flops:
    """Return the mean of each part, of at least one."""
    return Flops(**{part: float(np.mean([getattr(one, part) for one in flops])) for part in Flops.model_fields})


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of values that are all known, else None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
