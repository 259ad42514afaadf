"""Paired differences of many estimates at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from uniprune.results.statistics.estimate import Estimate
from uniprune.results.statistics.headline import Array
from uniprune.results.statistics.sources import Sources, difference

CANCELLED = 1e-6
"""Share of the variances of two estimates below which that of their difference is not taken from their covariance.

The covariance has a relative error near 1e-16, so the variance of a difference keeps ten digits above this share. Below
it, as of runs that differ on one row of thousands or on none, it is computed from the difference itself.
"""


def differences(estimates: Sequence[Estimate]) -> Iterator[Estimate]:
    """Yield the difference of every pair, in the order of `itertools.combinations`, each as `one - other` gives it.

    Variances come from one covariance matrix per source where all estimates have the same sources.
    """
    alike = len({tuple((name, source.size) for name, source in one.rows.items()) for one in estimates}) == 1
    if not alike:
        yield from (one - other for one, other in combinations(estimates, 2))
        return
    known = {name: variances([one.rows for one in estimates], name) for name in estimates[0].rows}
    for (i, one), (j, other) in combinations(enumerate(estimates), 2):
        rows = {
            name: difference(source, other.rows[name], float(known[name][i, j])) for name, source in one.rows.items()
        }
        yield replace(replace(one, rows={}) - replace(other, rows={}), rows=rows)


def variances(each: Sequence[Sources], name: str) -> Array:
    """Return the [R, R] variances of the differences by one source; NaN where too little is left of the minuends."""
    draws = np.array([some[name].draws for some in each])
    draws -= draws.mean(1, keepdims=True)
    products = draws @ draws.T / (draws.shape[1] - 1)
    own = np.diag(products)
    sums = own[:, None] + own
    found = sums - 2 * products
    return np.where(found > CANCELLED * sums, found, np.nan)
