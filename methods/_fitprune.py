"""FitPrune's recipes: how many tokens to delete in every layer, published and searched from recorded attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.errors import UserError

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


def retention(deletions: Sequence[int], tokens: int) -> list[float]:
    """Share of `tokens` that leaves each layer."""
    left, shares = tokens, []
    for count in deletions:
        left -= count
        shares.append(left / tokens)
    return shares


def resampled(shares: Sequence[float], layers: Sequence[int], num_layers: int) -> list[float]:
    """Shares that enter `layers` of a decoder with `num_layers`, from the shares that leave each layer of another.

    Linear in relative depth; the same numbers where the depths agree.
    """
    curve = [1.0, *shares]
    result = []
    for layer in layers:
        place = layer * len(shares) / num_layers
        low = min(int(place), len(shares) - 1)
        result.append(curve[low] + (place - low) * (curve[low + 1] - curve[low]))
    return result


@dataclass(frozen=True)
class Statistics:
    """Attention that visual tokens received in the un-pruned model.

    Attributes:
        cross, own: [S, L, N] of S samples and L layers: sum over the text rows behind the image, and over the visual
            rows, of the largest probability over heads. See `fitprune.received`.
        width, inner: hidden size of the decoder and of its MLP.
    """

    cross: Tensor
    own: Tensor
    width: int
    inner: int

    def flops(self, tokens: float) -> float:
        """Multiply-adds of one layer on `tokens` visual tokens."""
        return 4 * tokens * self.width**2 + 2 * tokens**2 * self.width + 3 * tokens * self.width * self.inner

    def deletions(self, alpha: float, budget: float) -> tuple[list[int], bool]:
        """Tokens to delete in every layer if each may lose a share `alpha` of both sums, until the FLOPs fit `budget`.

        In every sample, the least attended tokens go first; what both sums allow to delete is deleted. Counts are means
        over samples, rounded down.

        Returns:
            One count per layer, and whether the budget was met.
        """
        samples, layers, tokens = self.cross.shape
        alive = torch.ones(samples, tokens, dtype=torch.bool, device=self.cross.device)
        left, spent = tokens, 0.0
        counts = [0] * layers
        for layer in range(layers):
            doomed = alive
            for received in (self.cross[:, layer], self.own[:, layer]):
                doomed = doomed & _expendable(received, alive, alpha)
            counts[layer] = int(doomed.sum()) // samples
            alive = alive & ~doomed
            spent += self.flops(left)
            left -= counts[layer]
            if spent + (layers - layer - 1) * self.flops(left) <= budget:
                return counts, True
        return counts, False

    def search(self, left: float, precision: float = 0.01) -> list[int]:
        """The mildest recipe (smallest alpha) that leaves at most a share `left` of the visual FLOPs.

        Raises:
            UserError: no recipe does, as layer 0 sees every token.
        """
        budget = left * self.cross.shape[1] * self.flops(self.cross.shape[2])
        best, met = self.deletions(1.0, budget)
        if not met:
            raise UserError(f"no recipe leaves {left:g} of the FLOPs on visual tokens, for layer 0 sees all of them")
        low, high = 0.0, 1.0
        while high - low > precision:
            alpha = (low + high) / 2
            counts, met = self.deletions(alpha, budget)
            if met:
                best, high = counts, alpha
            else:
                low = alpha
        return best


def _expendable(received: Tensor, alive: Tensor, alpha: float) -> Tensor:
    """[S, N] True at the most living tokens, least attended first, without which (1 - alpha) of the sum remains."""
    order = received.masked_fill(~alive, torch.inf).argsort(dim=1, stable=True)
    slack = (received * alive).sum(1, keepdim=True) - (1 - alpha) * received.sum(1, keepdim=True)
    ranked = (received * alive).gather(1, order).cumsum(1) <= slack
    return torch.zeros_like(alive).scatter(1, order, ranked & alive.gather(1, order))
