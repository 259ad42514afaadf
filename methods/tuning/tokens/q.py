"""Q-Tuning's choice of tokens: misconceptions lose their locally noisy tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.functional import top_k
from uniprune.tuning.plane import MISCONCEPTION
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens, smoothed


@register_tokens("q")
@dataclass(frozen=True, kw_only=True)
class QuadrantTokens(TokenStrategy):
    """Removes tokens of Q2 samples by neighbour-smoothed perplexity; all other samples stay whole.

    The paper contradicts itself on which tokens stay: its text, Figure 2 and appendix B.3 remove those of high
    perplexity, algorithm 1 keeps the "top" ones. The default follows the text. Its text also names a criterion on a
    token and its neighbours beside the ranking; the ranking alone meets the count, so it decides alone.

    Args:
        smoothing: lambda, share of the two neighbours in a token's score.
        keep: "low" removes tokens of high perplexity, "high" keeps them.
        prune: quadrants whose samples lose tokens (Tables 4 and 15 of the paper compare subsets).
    """

    smoothing: float = 0.5
    keep: Literal["low", "high"] = "low"
    prune: tuple[int, ...] = (MISCONCEPTION,)
    scores: ClassVar[bool] = True
    by_quadrant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing <= 1:
            raise UserError(f"smoothing {self.smoothing!r} must lie in [0, 1]; the paper's lambda is 0.5")
        if not set(self.prune) <= {0, 1, 2, 3, 4}:
            raise UserError(f"prune {self.prune!r} must name quadrants 1, 2, 3, 4 (0: between the thresholds)")

    def concerns(self, quadrant: int | None) -> bool:
        """Samples of the chosen quadrants."""
        return quadrant in self.prune

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Lowest (or highest) smoothed perplexity."""
        scores = smoothed(view.nll.double().exp(), self.smoothing)
        return top_k(scores if self.keep == "high" else -scores, keep)
