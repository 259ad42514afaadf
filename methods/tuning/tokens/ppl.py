"""Lowest perplexity (Q-Tuning, arXiv 2509.23873, appendix B.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.fields import Share
from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens, smoothed


@register_tokens("ppl", paper="arXiv 2509.23873")
@dataclass(frozen=True, kw_only=True)
class Perplexity(TokenStrategy):
    """Remove the tokens of highest perplexity.

    Args:
        smoothing: share of the two neighbours in a token's score; 0 scores the token alone.
    """

    smoothing: Share = 0.0
    scores: ClassVar[bool] = True

    def select(self, view: TokenView, keep: int) -> Tensor:
        return top_k(-smoothed(view.nll.double().exp(), self.smoothing), keep)
