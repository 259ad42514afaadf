"""Returns positions in the prompt instead of indices into the view."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-prompt-positions")
@dataclass(frozen=True, kw_only=True)
class PromptPositions(PreLLM):
    """Forgets that the prompt begins with text."""

    def select(self, view, keep):
        return view.attention._visual()[top_k(view.tokens.float().norm(dim=-1), keep)]
