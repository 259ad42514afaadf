"""Tokens of Q-Tuning (arXiv 2509.23873): misconceptions lose their locally noisy tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from uniprune.pruning.fields import Share
from uniprune.pruning.functional import top_k
from uniprune.tuning.plane import MISCONCEPTION, Quadrant
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens, smoothed


@register_tokens(
    "q",
    paper="arXiv 2509.23873",
    deviations=["Ranks only: the paper's text also compares a token with its neighbours, which meets no exact count."],
)
@dataclass(frozen=True, kw_only=True)
class QuadrantTokens(TokenStrategy):
    """Remove tokens of Q2 samples by neighbour-smoothed perplexity; leave all other samples whole.

    The paper contradicts itself on which tokens stay: its text, Figure 2 and appendix B.3 remove those of high
    perplexity, algorithm 1 keeps the "top" ones. The default follows the text.

    Args:
        smoothing: lambda, share of the two neighbours in a token's score.
        keep: "low" removes tokens of high perplexity, "high" keeps them.
        prune: quadrants whose samples lose tokens (Tables 4 and 15 of the paper compare subsets).
    """

    smoothing: Share = 0.5
    keep: Literal["low", "high"] = "low"
    prune: tuple[Quadrant, ...] = (MISCONCEPTION,)
    scores: ClassVar[bool] = True
    by_quadrant: ClassVar[bool] = True

    def applies_to(self, quadrant: int | None) -> bool:
        return quadrant in self.prune

    def select(self, view: TokenView, keep: int) -> Tensor:
        scores = smoothed(view.nll.double().exp(), self.smoothing)
        return top_k(scores if self.keep == "high" else -scores, keep)
