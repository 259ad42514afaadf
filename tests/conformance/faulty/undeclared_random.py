"""Chooses by chance without saying so."""

from dataclasses import dataclass

from uniprune.pruner import PreLLM
from uniprune.registry import register_method
from uniprune.selection import random_subset


@register_method("faulty-undeclared-random")
@dataclass(frozen=True, kw_only=True)
class UndeclaredRandom(PreLLM):
    """A random subset."""

    def select(self, view, keep):
        return random_subset(len(view.tokens), keep, view.generator)
