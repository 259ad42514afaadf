"""Drops tokens although it was to keep everything."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM, Stage
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-prunes-at-one")
@dataclass(frozen=True, kw_only=True)
class PrunesAtOne(PreLLM):
    """Keeps a reserve of a tenth."""

    def schedule(self, num_layers):
        return (Stage(0, 0.9 * self.ratio, self),)

    def select(self, view, keep):
        return top_k(view.tokens.float().norm(dim=-1), keep)
