"""Keeps one token twice."""

from dataclasses import dataclass

import torch

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-duplicates")
@dataclass(frozen=True, kw_only=True)
class Duplicates(PreLLM):
    """The largest tokens, the largest of them twice when there is room."""

    def select(self, view, keep):
        best = top_k(view.tokens.float().norm(dim=-1), keep)
        return torch.cat([best[:1], best[: keep - 1]])
