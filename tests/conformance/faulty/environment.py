"""Leaves a trace in the environment."""

import os
from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-environment")
@dataclass(frozen=True, kw_only=True)
class Environment(PreLLM):
    """Tells the world how many tokens it kept."""

    def select(self, view, keep):
        os.environ["UNIPRUNE_FAULTY_KEPT"] = str(keep)
        return top_k(view.tokens.float().norm(dim=-1), keep)
