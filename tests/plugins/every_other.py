"""A user's own method in a file of its own."""

from dataclasses import dataclass

import torch

from uniprune.pruner import PreLLM
from uniprune.registry import register_method


@register_method("every-other")
@dataclass(frozen=True, kw_only=True)
class EveryOther(PreLLM):
    """Evenly spaced tokens."""

    offset: int = 0

    def select(self, view, keep):
        return (torch.arange(keep) * len(view.tokens) // keep + self.offset) % len(view.tokens)
