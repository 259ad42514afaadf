"""Rho-1 (arXiv 2404.07965)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens("rho-1", paper="arXiv 2404.07965")
@dataclass(frozen=True, kw_only=True)
class Rho1(TokenStrategy):
    """Keep the tokens of highest excess loss: loss minus that of a reference model trained on trusted data."""

    scores: ClassVar[bool] = True
    reference: ClassVar[bool] = True

    def select(self, view: TokenView, keep: int) -> Tensor:
        return top_k(view.nll - view.reference, keep)
