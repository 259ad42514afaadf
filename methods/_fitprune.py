"""FitPrune's recipes (tokens to delete in every layer, as published, and on other depths) and received attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

TOKENS = 576
# Share of the language model's FLOPs on visual tokens that is left -> tokens deleted in each of 32 layers, as published
# for LLaVA-1.5-7B.
# fmt: off
PUBLISHED: dict[float, tuple[int, ...]] = {
    0.90: (0, 0, 1, 2, 1, 0, 1, 4, 5, 5, 11, 4, 2, 2, 0, 0, 1, 1, 2, 4, 2, 10, 1, 1, 1, 2, 1, 1, 0, 1, 0, 0),
    0.80: (0, 0, 3, 3, 1, 1, 4, 16, 14, 15, 24, 4, 2, 3, 2, 0, 6, 0, 5, 13, 4, 19, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0),
    0.70: (0, 0, 7, 6, 4, 5, 16, 40, 24, 21, 24, 4, 2, 3, 4, 0, 16, 0, 11, 26, 6, 32, 3, 1, 0, 1, 2, 2, 4, 0, 0, 0),
    0.60: (0, 1, 21, 13, 14, 11, 41, 53, 29, 15, 14, 5, 1, 4, 5, 1, 26, 1, 13, 28, 6, 27, 2, 1, 0, 0, 1, 1, 2, 0, 0, 0),
    0.50: (3, 7, 49, 24, 29, 17, 59, 41, 26, 8, 10, 6, 2, 5, 7, 2, 30, 3, 13, 27, 5, 23, 2, 1, 0, 0, 1, 1, 2, 0, 0, 0),
    0.45: (6, 17, 69, 31, 34, 19, 59, 30, 23, 6, 8, 7, 2, 5, 8, 2, 29, 4, 12, 25, 4, 19, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    0.40: (14, 33, 89, 36, 36, 20, 55, 21, 18, 4, 7, 5, 2, 5, 7, 4, 26, 5, 11, 24, 4, 18, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    0.30: (48, 79, 118, 41, 33, 17, 36, 9, 9, 2, 3, 2, 1, 3, 4, 8, 18, 7, 8, 20, 4, 13, 2, 1, 0, 0, 1, 0, 1, 0, 0, 0),
    0.20: (128, 127, 118, 35, 26, 8, 13, 3, 2, 1, 0, 0, 0, 2, 1, 8, 7, 8, 5, 11, 2, 6, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0),
    0.10: (262, 153, 80, 19, 13, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0),
}
# fmt: on
RELEASES = {
    "test_releases_llm.test_settings_of_fitprune_are_shares_of_work": "Its settings are shares of FLOPs: with the "
    'recipe "60 %" 245 of 576 tokens enter a layer on average, and 127 leave the last; nearest to 192, 128 and 64 are '
    '"70 %", "80 %" and "90 %".',
    "test_golden_llm.test_fitprune_is_not_inverted": "UniPruneBench: its port keeps the least important tokens.",
}


def retention(deletions: Sequence[int], tokens: int) -> list[float]:
    """Return the share of `tokens` that leaves each layer."""
    left, shares = tokens, []
    for count in deletions:
        left -= count
        shares.append(left / tokens)
    return shares


def resampled(shares: Sequence[float], layers: Sequence[int], num_layers: int) -> list[float]:
    """Return the shares that enter `layers` of `num_layers`, from the shares that leave each layer of another decoder.

    Linear in relative depth; the same numbers where the depths agree.
    """
    curve = [1.0, *shares]
    result = []
    for layer in layers:
        place = layer * len(shares) / num_layers
        low = min(int(place), len(shares) - 1)
        result.append(curve[low] + (place - low) * (curve[low + 1] - curve[low]))
    return result


def received(blocks: Iterable[Tensor]) -> Tensor:
    """[N] sum over rows of the largest probability over heads, from blocks [heads, r, N] of attention rows."""
    return torch.stack([block.amax(0).sum(0) for block in blocks]).sum(0)
