"""The error-uncertainty plane: a batch's samples by perplexity and entropy, cut into quadrants by quantiles.

Every threshold is a quantile of the batch, so the plane is relative: a quadrant says how a sample compares with the
others of its batch, now. Algorithm 1 of the Q-Tuning paper, appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BETWEEN, NOISE, MISCONCEPTION, KNOWN, CALIBRATION = range(5)
"""Quadrant numbers as in the paper: Q1 high/high, Q2 high perplexity with low entropy, Q3 low/low, Q4 low perplexity
with high entropy; 0 lies between the thresholds of an axis."""
WIDEST = 0.49
"""Largest quantile share of a corner, so that the low and the high side of an axis never meet."""


@dataclass(frozen=True)
class Plane:
    """A batch's plane.

    Attributes:
        share: alpha = beta, the quantile share that each side of an axis takes.
        perplexity, entropy: (low, high) thresholds. quadrants: [N] quadrant numbers.
    """

    share: float
    perplexity: tuple[float, float]
    entropy: tuple[float, float]
    quadrants: Tensor


def rank(share: float, count: int) -> int:
    """Place in ascending order of the smallest of `count` values that at least a share of them does not exceed."""
    return min(count, max(1, math.ceil(share * count - 1e-9))) - 1


def partition(perplexity: Tensor, entropy: Tensor, share: float) -> Plane:
    """Quadrants when the lowest and the highest `share` of each axis count as low and high, without interpolation.

    A value that is both, because a batch is tiny or all alike, counts as low.
    """
    ends = [rank(share, len(perplexity)), rank(1 - share, len(perplexity))]
    cuts = [(low, high) for low, high in (axis.sort().values[ends].tolist() for axis in (perplexity, entropy))]
    (wrong_low, wrong_high), (unsure_low, unsure_high) = cuts
    right, sure = perplexity <= wrong_low, entropy <= unsure_low
    wrong, unsure = (perplexity >= wrong_high) & ~right, (entropy >= unsure_high) & ~sure
    quadrants = torch.full((len(perplexity),), BETWEEN)
    for number, corner in (
        (NOISE, wrong & unsure),
        (MISCONCEPTION, wrong & sure),
        (KNOWN, right & sure),
        (CALIBRATION, right & unsure),
    ):
        quadrants[corner] = number
    return Plane(share, cuts[0], cuts[1], quadrants)


def bisect(
    perplexity: Tensor,
    entropy: Tensor,
    ratio: float,
    kept: Collection[int] = (MISCONCEPTION, CALIBRATION),
    iterations: int = 10,
) -> Plane:
    """The plane whose quadrants `kept` hold about a share `ratio` of the batch.

    The quantile share starts between 0 and 0.49; too few kept samples raise its lower end, enough lower its upper end.
    The paper moves one share per axis, but both by the same rule from the same start, so they are one number.
    """
    low, high, count = 0.0, WIDEST, len(perplexity)
    seen: dict[tuple[int, int], tuple[Plane, bool]] = {}  # shares of one rank give one partition
    for _ in range(iterations):
        share = (low + high) / 2
        ranks = rank(share, count), rank(1 - share, count)
        if ranks not in seen:
            plane = partition(perplexity, entropy, share)
            seen[ranks] = plane, bool(within(plane.quadrants, kept).double().mean() < ratio)
        plane, few = seen[ranks]
        low, high = (share, high) if few else (low, share)
    return replace(plane, share=share)


def within(quadrants: Tensor, numbers: Collection[int]) -> Tensor:
    """[N] whether a sample lies in one of the given quadrants."""
    return torch.isin(quadrants, torch.tensor(sorted(numbers), dtype=quadrants.dtype))


def supplement(perplexity: Tensor, entropy: Tensor) -> Tensor:
    """[N] supplement scores: distance between perplexity and entropy after scaling both to 0-1 within the batch."""
    return (_unit(perplexity) - _unit(entropy)).abs()


def _unit(values: Tensor) -> Tensor:
    """Min-max scaling; equal values become 0."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else torch.zeros_like(values)
