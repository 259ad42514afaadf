"""Looks at the question in secret, past the view."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-reads-the-question")
@dataclass(frozen=True, kw_only=True)
class ReadsTheQuestion(PreLLM):
    """The tokens most like the last token of the prompt."""

    def select(self, view, keep):
        row = view._arriving.embeds[view._prompt.row].float() if hasattr(view, "_prompt") else view.text.float()
        return top_k(view.tokens.float() @ row[-1], keep)
