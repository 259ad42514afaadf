"""All tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens("none")
@dataclass(frozen=True, kw_only=True)
class NoTokens(TokenStrategy):
    """Removes no token, whatever the ratio."""

    def concerns(self, quadrant: int | None) -> bool:
        """Never."""
        return False

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Everything."""
        return torch.arange(keep)
