"""Tokens by perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens, smoothed


@register_tokens("ppl")
@dataclass(frozen=True, kw_only=True)
class Perplexity(TokenStrategy):
    """Removes the tokens of highest perplexity (Q-Tuning, appendix B.3).

    Args:
        smoothing: share of the two neighbours in a token's score; 0 looks at the token alone.
    """

    smoothing: float = 0.0
    scores: ClassVar[bool] = True

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Lowest perplexity."""
        return top_k(-smoothed(view.nll.double().exp(), self.smoothing), keep)
