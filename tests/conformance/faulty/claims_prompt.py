"""Claims to look at the question, and does not."""

from dataclasses import dataclass
from typing import ClassVar

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-claims-prompt")
@dataclass(frozen=True, kw_only=True)
class ClaimsPrompt(PreLLM):
    """The tokens with the largest norm."""

    prompt_aware: ClassVar[bool] = True

    def select(self, view, keep):
        return top_k(view.tokens.float().norm(dim=-1), keep)
