"""Random choice before the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import random_subset
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method("random-pre", paper="arXiv 2511.02650")
@dataclass(frozen=True, kw_only=True)
class RandomPre(PreLLM):
    """Keeps a uniformly random subset of each image's tokens (baseline of UniPruneBench, arXiv 2511.02650).

    Differs from the paper in: nothing it says. Differs from the release in: kept tokens stay in raster order, where it
    shuffles them on InternVL (`order="release"`); the draw is seeded per sample, so it depends on neither batch nor
    order; an image has one budget, where InternVL's first tile has one and all others together another; the count is
    rounded instead of floored. Cost: none.
    """

    random: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        """A random `keep` of the tokens."""
        return random_subset(len(view.tokens), keep, view.generator)
