"""FastV for answers: keep what the last position attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens("fastv", paper="arXiv 2403.06764")
@dataclass(frozen=True, kw_only=True)
class FastVTokens(TokenStrategy):
    """Keeps the answer tokens that get most attention in the last decoder layer, from the sample's last position.

    The layer is Q-Tuning's (appendix B.3); the one query row is that of FastV's released code, since the paper names
    none, and a mean over all causal rows would favour early tokens.
    """

    attention: ClassVar[str] = "last"

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Most attended."""
        return top_k(view.attention[0], keep)
