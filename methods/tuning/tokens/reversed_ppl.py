"""Highest perplexity (Q-Tuning, arXiv 2509.23873, Table 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.fields import Share
from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens, smoothed


@register_tokens("reversed-ppl", paper="arXiv 2509.23873")
@dataclass(frozen=True, kw_only=True)
class ReversedPerplexity(TokenStrategy):
    """Keep the tokens of highest neighbour-smoothed perplexity.

    Args:
        smoothing: share of the two neighbours in a token's score.
    """

    smoothing: Share = 0.5
    scores: ClassVar[bool] = True

    def select(self, view: TokenView, keep: int) -> Tensor:
        return top_k(smoothed(view.nll.double().exp(), self.smoothing), keep)
