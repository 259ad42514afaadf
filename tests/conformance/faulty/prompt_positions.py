"""Returns positions in the prompt instead of indices into the view."""

from dataclasses import dataclass

from uniprune.pruner import PreLLM
from uniprune.registry import register_method
from uniprune.selection import top_k


@register_method("faulty-prompt-positions")
@dataclass(frozen=True, kw_only=True)
class PromptPositions(PreLLM):
    """Forgets that the prompt begins with text."""

    def select(self, view, keep):
        return view.attention.visual[top_k(view.tokens.float().norm(dim=-1), keep)]
