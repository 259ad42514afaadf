"""Paired differences of many estimates at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from uniprune.results.statistics.estimate import Estimate, Source, Sources
from uniprune.results.statistics.headline import Array


def differences(estimates: Sequence[Estimate]) -> Iterator[Estimate]:
    """Yield the difference of every pair, in the order of `itertools.combinations`, each as `one - other` gives it.

    The differences of one estimate with all later ones are computed together, a source at a time.
    """
    alike = len({tuple((name, source.draws.shape) for name, source in one.rows.items()) for one in estimates}) == 1
    values = np.array([one.value for one in estimates])
    for i, one in enumerate(estimates[:-1]):
        others = estimates[i + 1 :]
        rows = _rows(one, others, values[i + 1 :, None]) if alike else [(one - other).rows for other in others]
        for other, own in zip(others, rows, strict=True):
            seeds = replace(one, rows={}) - replace(other, rows={})
            yield replace(seeds, rows=own)


def _rows(one: Estimate, others: Sequence[Estimate], values: Array) -> Sequence[Sources]:
    """Return the sources of rows of the differences with others, which have the same ones."""
    found: list[dict[str, Source]] = [{} for _ in others]
    for name, source in one.rows.items():
        same = [other.rows[name] for other in others]
        draws = np.stack([each.draws for each in same])
        # in this order, so that they are equal to those of a single pair to the last bit
        draws += values
        np.subtract(one.value + source.draws, draws, out=draws)
        draws -= one.value - values
        for into, each, off, variance in zip(found, same, draws, draws.var(axis=1, ddof=1).tolist(), strict=True):
            units, freedom = min(source.units, each.units), min(source.freedom, each.freedom)
            into[name] = Source(off, units, freedom, variance)
    return found
