"""Random choice inside the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.functional import random_subset
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method("random-intra", paper="arXiv 2511.02650")
@dataclass(frozen=True, kw_only=True)
class RandomIntra(IntraLLM):
    """Keeps a uniformly random subset of the visual tokens before decoder layer K (UniPruneBench, arXiv 2511.02650).

    Differs from the paper in: nothing it says. Differs from the release in: the draw is seeded per sample, where it
    takes the global generator; original positions are kept in every family, where it renumbers on InternVL without
    telling the decode steps; the count is rounded instead of floored. Cost: none.
    """

    random: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        """A random `keep` of the tokens."""
        return random_subset(len(view.tokens), keep, view.generator)
