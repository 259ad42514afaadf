"""Decides for a batch by what its views have on average."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-both-forms")
@dataclass(frozen=True, kw_only=True)
class BothForms(PreLLM):
    """Ranks the tokens of all prompts by the first one's norms."""

    def select(self, view, keep):
        return top_k(view.tokens.float().norm(dim=-1), keep)

    def select_batch(self, batch, keep):
        ranks = top_k(batch.tokens.float().norm(dim=-1).mean(0), keep)
        return ranks.expand(len(batch), -1)
