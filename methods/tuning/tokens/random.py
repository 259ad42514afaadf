"""Random tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniprune.pruning.functional import random_subset
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens("random")
@dataclass(frozen=True, kw_only=True)
class RandomTokens(TokenStrategy):
    """Keep answer tokens uniformly at random."""

    def select(self, view: TokenView, keep: int) -> Tensor:
        return random_subset(view.count, keep, view.generator)
