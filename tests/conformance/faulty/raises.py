"""Fails where only one token is to be kept."""

from dataclasses import dataclass

import torch

from uniprune.pruning.base import PreLLM
from uniprune.registry import register_method


@register_method("faulty-raises")
@dataclass(frozen=True, kw_only=True)
class Raises(PreLLM):
    """Evenly spaced tokens, the distance computed from the gaps between them."""

    def select(self, view, keep):
        return torch.arange(keep) * ((len(view.tokens) - 1) // (keep - 1))
