"""Reaches through the view to the model's weights."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-changes-model")
@dataclass(frozen=True, kw_only=True)
class ChangesModel(PreLLM):
    """Normalises with a final norm that it sets to one first."""

    def select(self, view, keep):
        view.norm.__self__.decoder.norm.weight.data.fill_(1)
        return top_k(view.norm(view.tokens).float().norm(dim=-1), keep)
