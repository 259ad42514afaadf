"""Chooses by chance without saying so."""

from dataclasses import dataclass

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import random_subset
from uniprune.registry import register_method


@register_method("faulty-undeclared-random")
@dataclass(frozen=True, kw_only=True)
class UndeclaredRandom(PreLLM):
    """A random subset."""

    def select(self, view, keep):
        return random_subset(len(view.tokens), keep, view.generator)
