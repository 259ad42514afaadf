"""Merges into nothing: the mean of an empty group."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.functional import complement, top_k
from uniprune.registry import register_method


@register_method("faulty-nan-merge")
@dataclass(frozen=True, kw_only=True)
class NanMerge(PreLLM):
    """Adds the mean of the small tokens that nothing is left of once the large ones are taken."""

    def select(self, view, keep):
        best = top_k(view.tokens.float().norm(dim=-1), keep)
        small = complement(len(view.tokens), best)[keep:]
        tokens = view.tokens.float()
        return Selection(best, tokens[best] + tokens[small].mean(0))
