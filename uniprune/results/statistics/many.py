"""Intervals and ratios of many estimates at once, equal to those of single ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import special

from uniprune.results.statistics.estimate import CONFIDENCE, POSITIVE, Estimate
from uniprune.results.statistics.headline import Array
from uniprune.results.statistics.sources import Source, together

AT_ONCE = 256
"""Estimates whose deviations are in memory together."""
Interval = tuple[float, float] | None


def intervals(estimates: Sequence[Estimate], confidence: float = CONFIDENCE) -> list[Interval]:
    """Return the interval of every estimate, as `Estimate.interval` gives it."""
    found: list[Interval] = [None] * len(estimates)
    spreading = defaultdict(list)  # by number of draws
    for i, one in enumerate(estimates):
        if one.enough and one.error:
            spreading[max(source.size for source in one.rows.values())].append(i)
        else:
            found[i] = one.interval(confidence)
    for size, places in spreading.items():
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            ends = _ends([estimates[i] for i in some], size, (1 - confidence) / 2)
            for i, (low, high) in zip(some, ends, strict=True):
                found[i] = estimates[i].inside(low, high)
    return found


def _ends(estimates: Sequence[Estimate], size: int, tail: float) -> Iterator[tuple[float, float]]:
    """Yield the ends of percentile intervals before they are cut at the scale."""
    freedom = np.array([[spread.freedom for spread in one.spreads] for one in estimates])
    wider = np.where(np.isfinite(freedom), special.stdtrit(freedom, tail), special.ndtri(tail)) / special.ndtri(tail)
    draws = np.empty((len(estimates), size))
    for one, into, (by_rows, by_seeds) in zip(estimates, draws, wider, strict=True):
        np.multiply(together(one.rows), by_rows, out=into)
        if one.seeds:
            into += together(one.seeds) * by_seeds
    draws.sort(axis=1)  # several times faster than np.quantile, which parts rows at four places
    ends = np.stack([_quantile(draws, share) for share in (tail, 1 - tail)])
    yield from (np.array([one.value for one in estimates]) + ends).T.tolist()


def _quantile(ordered: Array, share: float) -> Array:
    """Return the quantile of every row of ascending numbers, with the rounding of `np.quantile`."""
    place = share * (ordered.shape[1] - 1)
    first = int(place)
    low, high = ordered[:, first], ordered[:, min(first + 1, ordered.shape[1] - 1)]
    part = place - first
    return np.asarray(low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part))


def ratios(estimates: Sequence[Estimate], base: Estimate) -> list[Estimate]:
    """Return every estimate in percent of a base, as `one / base` gives it.

    Those that have the sources of the base, and no chance of seeds, are computed together.
    """
    sizes = {name: source.size for name, source in base.rows.items()}
    alike = [not (one.seeds or base.seeds) and _sizes(one) == sizes for one in estimates]
    together_ = iter(_ratios([one for one, same in zip(estimates, alike, strict=True) if same], base))
    return [next(together_) if same else one / base for one, same in zip(estimates, alike, strict=True)]


def _sizes(one: Estimate) -> dict[str, int]:
    """Return source -> number of its deviations."""
    return {name: source.size for name, source in one.rows.items()}


def _ratios(estimates: Sequence[Estimate], base: Estimate) -> Iterator[Estimate]:
    """Yield the ratios of estimates with the same sources."""
    values = np.array([one.value for one in estimates])[:, None]
    shares = 100 * values / base.value
    sources: list[dict[str, Source]] = [{} for _ in estimates]
    for name, source in base.rows.items() if estimates else ():
        draws = _moved(np.array([one.rows[name].draws for one in estimates]), values, shares, source, base.value)
        known = draws.var(axis=1, ddof=1).tolist()
        for one, into, own, variance in zip(estimates, sources, draws, known, strict=True):
            held = one.rows[name]
            units, freedom = min(held.units, source.units), min(held.freedom, source.freedom)
            into[name] = Source(((1.0, own),), units, freedom, variance)
    for share, rows in zip(shares[:, 0].tolist(), sources, strict=True):
        yield Estimate(share, rows, scale=POSITIVE)


def _moved(draws: Array, values: Array, shares: Array, source: Source, base: float) -> Array:
    """Return [R, B] deviations of ratios that a source causes; a resample in which the base is zero causes none."""
    below = base + source.draws
    draws += values
    draws *= 100
    there = below > 0
    if not there.all():
        below = np.where(there, below, 1.0)
    draws /= below
    draws -= shares
    return draws if there.all() else np.where(there, draws, 0.0)
