"""Random choice before the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.functional import Order, in_order, random_subset
from uniprune.pruning.validation import check_choice
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

    Args:
        order: "raster" keeps every token in its place; "release" hands them over in drawing order.
    """

    random: ClassVar[bool] = True
    order: Order = "raster"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("order", self.order, Order)
        object.__setattr__(self, "in_place", self.order == "raster")

    def select(self, view: View, keep: int) -> Tensor | Selection:
        """A random `keep` of the tokens."""
        drawn = random_subset(len(view.tokens), keep, view.generator)
        return drawn if self.order == "raster" else in_order(drawn, view.tokens[drawn])
