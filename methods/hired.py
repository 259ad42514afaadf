"""HiRED: early attention to the whole image shares the budget out among tiles, late attention spends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from uniprune.pruning.fields import Share
from uniprune.pruning.functional import top_k, true_places
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._best_of import best_of
from ._hired import OfTiles, tile_counts

Regions = Literal["strips", "tiles"]


@register_method(
    "hired",
    paper="arXiv 2408.10945",
    code="hasanar1f/HiRED",
    licence="MIT",
    deviations=[
        "Paper: regions of the whole image are runs of its raster, as released. `regions=tiles` counts in the part "
        "that a tile shows; this is ours, and refused where the arrangement of tiles is unknown (InternVL, SmolVLM).",
        "Release: the budget is met by largest remainders, and what a tile has no tokens for goes to others; there "
        "both are lost, 358 tokens of 360 in one stored case (`counts=release`).",
        "Release: padding of LLaVA-NeXT's tiles is not chosen; there it is, and cut off later. Newlines stay.",
        "Release: runs of a tile whose tokens their number does not divide differ by one token; alpha near 1 with "
        "budget left shares equally. The release fails on both.",
        "Release: alpha is 0.5, that of its scripts; its library has 1, everything for the whole image.",
        "Release: it has LLaVA-NeXT, and one tile (LLaVA-1.5): the most attended tokens, as in families without tiles. "
        "InternVL and SmolVLM, whose whole image is the last tile, are ours, as is received attention of the first and "
        "the last layers that see the whole image where the tower has no CLS token.",
        "Release: original positions are kept (`positions=compact` renumbers).",
    ],
    releases={
        "test_methods_tiles.test_the_budget_goes_where_attention_is_only_if_regions_are_what_tiles_show": "With more "
        "than one column of tiles the budget goes to other tiles than those that are attended to: regions of the "
        "whole image are runs of its raster (`regions=strips`), not what the tiles show (`regions=tiles`).",
    },
)
@dataclass(frozen=True, kw_only=True)
class HiRED(OfTiles):
    """High-resolution early dropping: a budget for every tile, and its most attended tokens (arXiv 2408.10945).

    The tile with the whole image gets a share of the budget. The others divide the rest by how many of its tokens with
    most CLS attention in the first layer are in their regions. Each keeps its tokens of most CLS attention late on.

    Cost: O(N log N).

    Args:
        alpha: share of the budget of the tile with the whole image, and the share of its tokens that are not counted.
        regions: parts of the whole image that tiles stand for: "strips" of its raster or what the "tiles" show.
        initial_layer: the first layer: a block of the tower or, as a fraction of its depth, the first block from there
            on that attends to the whole image.
        vision_layer: the late layer; None for the block that makes the features.
    """

    alpha: Share = 0.5
    regions: Regions = "strips"

    def select(self, view: View, keep: int) -> Tensor:
        late, tiles = view.vision.importance(self.vision_layer), view.tiles
        if tiles is None:
            return top_k(late, keep)
        early, strips = view.vision.importance(self.initial_layer), self.regions == "strips"
        counts = tile_counts(view, tiles, early, keep, self.alpha, strips, self.exact)
        return true_places(best_of(late, tiles.of.numpy(), counts), int(counts.sum()))
