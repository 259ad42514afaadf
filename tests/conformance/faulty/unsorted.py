"""Hands tokens over best first, into places that are sorted."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-unsorted")
@dataclass(frozen=True, kw_only=True)
class Unsorted(PreLLM):
    """Sorts the indices but not the tokens that go with them."""

    def select(self, view, keep):
        best = top_k(view.tokens.float().norm(dim=-1), keep)
        return Selection(best.sort().values, view.tokens[best])
