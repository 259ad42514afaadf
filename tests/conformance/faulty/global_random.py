"""Draws from torch's global generator instead of the view's."""

from dataclasses import dataclass

import torch

from uniprune.pruning.base import PreLLM
from uniprune.registry import register_method


@register_method("faulty-global-random")
@dataclass(frozen=True, kw_only=True)
class GlobalRandom(PreLLM):
    """A random subset that nobody can draw again."""

    def select(self, view, keep):
        return torch.randperm(len(view.tokens))[:keep]
