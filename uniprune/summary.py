"""What the stored answers of one benchmark add up to: timings and the token ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from uniprune.predictions import Answer
from uniprune.records import Ledger, Quantity, Timing

SPANS = ("vision", "projector", "method", "prefill", "decode", "total")


def timing(answers: Iterable[Answer]) -> Timing | None:
    """Medians, quartile distances and totals of every span. None when nothing was measured."""
    measured = [answer for answer in answers if answer.spans is not None]
    if not measured:
        return None
    spans = {name: quantity([answer.spans[name] for answer in measured if answer.spans]) for name in SPANS}
    return Timing(
        **spans,
        new_tokens=float(np.mean([answer.new_tokens or 0 for answer in measured])),
        batch_size=float(np.mean([answer.batch for answer in measured])),
        rows=len(measured),
    )


def quantity(seconds: Sequence[float]) -> Quantity:
    """Distribution of a span over rows."""
    low, median, high = np.percentile(seconds, [25, 50, 75]) * 1000
    return Quantity(median=float(median), iqr=float(high - low), total=float(np.sum(seconds)))


def ledger(answers: Iterable[Answer]) -> Ledger | None:
    """Mean visual tokens per layer over rows with images, against what the budget asked. None without such rows."""
    rows = [(a.visual_tokens, a.requested or 0.0) for a in answers if a.visual_tokens and any(a.visual_tokens)]
    if not rows:
        return None
    layers = np.mean([tokens for tokens, _ in rows], axis=0)
    return Ledger(
        layers=layers.tolist(),
        average=float(layers.mean()),
        requested=float(np.mean([requested for _, requested in rows])),
        flagged=any(abs(float(np.mean(tokens)) - requested) > 1 for tokens, requested in rows),
    )
