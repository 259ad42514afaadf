"""Scores in half precision."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-half-scores")
@dataclass(frozen=True, kw_only=True)
class HalfScores(PreLLM):
    """The largest tokens, their norms in whatever precision the model has."""

    def select(self, view, keep):
        return top_k((view.tokens * view.tokens).sum(-1), keep)
