"""Lets the attention kernel decide."""

from dataclasses import dataclass
from typing import ClassVar

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-kernel")
@dataclass(frozen=True, kw_only=True)
class Kernel(IntraLLM):
    """Trusts attention where its kernel could have returned it."""

    llm_attention: ClassVar[bool] = True

    def select(self, view, keep):
        scores = view.attention("last").mean(0)[0]
        eager = view.attention.captured.module.config._attn_implementation == "eager"
        return top_k(scores if eager else view.tokens.float().norm(dim=-1), keep)
