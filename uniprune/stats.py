"""Uncertainty of a score."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from scipy import stats


def interval(credits: Collection[float], confidence: float = 0.95, resamples: int = 2000) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean credit (0-1) per item, as 0-100. None below two items.

    Seeded: the same credits give the same interval.
    """
    values = np.fromiter(credits, dtype=float)
    if len(values) < 2:
        return None
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        vectorized=True,
        batch=200,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return 100 * float(result.low), 100 * float(result.high)
