"""Error-uncertainty plane: a batch's samples by perplexity and entropy, cut into quadrants by quantiles.

Every threshold is a quantile of the batch, so a quadrant ranks a sample only among the others of its batch, under the
current model. Algorithm 1 of the Q-Tuning paper (arXiv 2509.23873, appendix D).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from torch import Tensor

BETWEEN: Final = 0
NOISE: Final = 1
MISCONCEPTION: Final = 2
KNOWN: Final = 3
CALIBRATION: Final = 4
"""Quadrant numbers as in the paper: Q1 high/high, Q2 high perplexity with low entropy, Q3 low/low, Q4 low perplexity
with high entropy; 0 is between the thresholds of an axis."""
Quadrant = Literal[0, 1, 2, 3, 4]
Corner = Literal[1, 2, 3, 4]
Bisection = Literal["tightest", "algorithm 1", "equation 6"]
"""Plane that a bisection returns: the tightest that holds enough samples, or the last one it looked at, where it widens
after too few samples (algorithm 1) or after no more than asked for (equation 6 of the paper)."""
WIDEST = 0.49
"""Largest quantile share of a corner, so that the low and the high side of an axis never meet."""


@dataclass(frozen=True)
class Plane:
    """A batch's plane.

    Attributes:
        share: alpha = beta, the quantile share of each side of an axis.
        perplexity: (low, high) thresholds.
        entropy: (low, high) thresholds.
        quadrants: [N] quadrant numbers.
    """

    share: float
    perplexity: tuple[float, float]
    entropy: tuple[float, float]
    quadrants: Tensor


def rank(share: float, count: int) -> int:
    """Return the ascending rank of the smallest of `count` values that at least `share` of them do not exceed."""
    return min(count, max(1, math.ceil(share * count - 1e-9))) - 1


def partition(perplexity: Tensor, entropy: Tensor, share: float) -> Plane:
    """Cut the plane where the lowest and the highest `share` of each axis count as low and high, without interpolation.

    A value that is both, because the batch is tiny or its values are equal, counts as low.
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
    returns: Bisection = "tightest",
) -> Plane:
    """Return the plane whose quadrants `kept` hold about a share `ratio` of the batch.

    The quantile share starts between 0 and 0.49; too few kept samples raise its lower end, enough lower its upper end.
    The paper moves one share per axis, but both by the same rule from the same start, so they are one number.

    Of a small batch the number of kept samples is a step, and the search ends on either side of it: the plane that it
    looks at last often holds no sample. So the tightest of the planes it has looked at that hold enough is returned, or
    the widest if none does.
    """
    low, high, count = 0.0, WIDEST, len(perplexity)
    planes: dict[tuple[int, int], tuple[Plane, float]] = {}  # shares of one rank give one partition
    looked: list[tuple[Plane, float]] = []
    for _ in range(iterations):
        share = (low + high) / 2
        ranks = rank(share, count), rank(1 - share, count)
        if ranks not in planes:
            plane = partition(perplexity, entropy, share)
            planes[ranks] = plane, float(within(plane.quadrants, kept).double().mean())
        plane, held = planes[ranks]
        looked.append((replace(plane, share=share), held))
        few = held <= ratio if returns == "equation 6" else held < ratio
        low, high = (share, high) if few else (low, share)
    if returns != "tightest":
        return looked[-1][0]
    enough = [plane for plane, held in looked if held >= ratio]
    tightest = min(enough, key=_share, default=None)
    return tightest or max((plane for plane, _ in looked), key=_share)


def _share(plane: Plane) -> float:
    return plane.share


def within(quadrants: Tensor, numbers: Collection[int]) -> Tensor:
    """Return [N] whether each sample is in one of the given quadrants."""
    return torch.isin(quadrants, torch.tensor(sorted(numbers), dtype=quadrants.dtype))


def supplement(perplexity: Tensor, entropy: Tensor) -> Tensor:
    """Return [N] supplement scores: distance of perplexity and entropy, both scaled to 0-1 within the batch."""
    return (_unit(perplexity) - _unit(entropy)).abs()


def _unit(values: Tensor) -> Tensor:
    """Scale values to 0-1; equal values become 0."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else torch.zeros_like(values)
