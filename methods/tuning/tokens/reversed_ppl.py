"""Tokens by perplexity, the other way round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens, smoothed


@register_tokens("reversed-ppl")
@dataclass(frozen=True, kw_only=True)
class ReversedPerplexity(TokenStrategy):
    """Keeps the tokens of highest neighbour-smoothed perplexity (Q-Tuning, Table 5).

    Args:
        smoothing: share of the two neighbours in a token's score.
    """

    smoothing: float = 0.5
    scores: ClassVar[bool] = True

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Highest perplexity."""
        return top_k(smoothed(view.nll.double().exp(), self.smoothing), keep)
