"""Keeps one token less than it was asked for."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-off-by-one")
@dataclass(frozen=True, kw_only=True)
class OffByOne(PreLLM):
    """Rounds on its own: floor instead of half up."""

    def select(self, view, keep):
        return top_k(view.tokens.float().norm(dim=-1), int(len(view.tokens) * self.ratio))
