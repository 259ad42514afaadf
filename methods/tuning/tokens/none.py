"""All tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens("none")
@dataclass(frozen=True, kw_only=True)
class NoTokens(TokenStrategy):
    """Remove no token at any ratio."""

    def applies_to(self, quadrant: int | None) -> bool:
        return False

    def select(self, view: TokenView, keep: int) -> Tensor:
        return torch.arange(keep)
