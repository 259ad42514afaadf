"""Random choice before the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruner import PreLLM
from uniprune.registry import register_method
from uniprune.selection import random_subset
from uniprune.view import View


@register_method("random-pre", paper="arXiv 2511.02650")
@dataclass(frozen=True, kw_only=True)
class RandomPre(PreLLM):
    """Keeps a uniformly random subset of each image's tokens (baseline of UniPruneBench, arXiv 2511.02650).

    Differs from the paper in: kept tokens stay in raster order (the released code shuffles them on InternVL), and the
    draw is seeded per sample, so it depends on neither batch nor order. Cost: none.
    """

    random: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        """A random `keep` of the tokens."""
        return random_subset(len(view.tokens), keep, view.generator)
