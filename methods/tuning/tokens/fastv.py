"""FastV (arXiv 2403.06764) for answer tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens(
    "fastv",
    paper="arXiv 2403.06764",
    deviations=["Attention is that of the last decoder layer, as in Q-Tuning (arXiv 2509.23873, appendix B.3)."],
)
@dataclass(frozen=True, kw_only=True)
class FastVTokens(TokenStrategy):
    """Keep the answer tokens that receive most attention from the sample's last position.

    The single query row is that of FastV's released code, since the paper names none; a mean over all causal rows would
    favour early tokens.
    """

    attention: ClassVar[str] = "last"

    def select(self, view: TokenView, keep: int) -> Tensor:
        return top_k(view.attention[0], keep)
