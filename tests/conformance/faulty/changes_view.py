"""Works in the tensors it was lent."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-changes-view")
@dataclass(frozen=True, kw_only=True)
class ChangesView(PreLLM):
    """Cuts negative features off, in place."""

    def select(self, view, keep):
        view.tokens.clamp_(min=0)
        return top_k(view.tokens.float().norm(dim=-1), keep)
