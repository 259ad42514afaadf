"""Looks in the tokens' own precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.functional import top_k
from uniprune.pruning.looks import Look, Passage
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method("faulty-half-looks")
@dataclass(frozen=True, kw_only=True)
class HalfLooks(IntraLLM):
    """Compares states without a cast."""

    def looks(self, layers: Sequence[int]) -> list[Look]:
        return [Look(layers[0] - 1)]

    def look(self, passage: Passage) -> Tensor:
        return (passage.leaving - passage.entering).float().abs().sum(-1)

    def select(self, view: View, keep: int) -> Tensor:
        return top_k(view.seen[0], keep)
