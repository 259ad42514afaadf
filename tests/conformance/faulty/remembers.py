"""Remembers earlier samples."""

from dataclasses import dataclass, field

import torch

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-remembers")
@dataclass(frozen=True, kw_only=True)
class Remembers(PreLLM):
    """The tokens least like the mean of everything seen so far."""

    seen: list = field(default_factory=list)

    def select(self, view, keep):
        self.seen.append(view.tokens.mean(0))
        return top_k((view.tokens - torch.stack(self.seen).mean(0)).norm(dim=-1), keep)
