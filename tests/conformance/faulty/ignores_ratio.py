"""Keeps half of the tokens, whatever was asked for."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM, Stage
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-ignores-ratio")
@dataclass(frozen=True, kw_only=True)
class IgnoresRatio(PreLLM):
    """The larger half of the tokens."""

    def schedule(self, num_layers):
        return (Stage(0, 0.5 if self.ratio < 1 else 1.0, self),)

    def select(self, view, keep):
        return top_k(view.tokens.float().norm(dim=-1), keep)
