"""HiPrune: what a middle layer of the vision tower attends to, its neighbours, and what a deep layer attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.fields import Bound, Share
from uniprune.pruning.view import TowerLayer, View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._hiprune import frames, hierarchical

Depth = Annotated[float, Bound(0, 1, above=True)]


@register_method(
    "hiprune",
    paper="arXiv 2508.00553",
    code="Danielement321/HiPrune",
    licence="MIT",
    deviations=[
        "Paper, where its code's README says the output layer: the deep layer is the one that makes the features.",
        "Paper, where only code is known: the share of anchors, and neighbours at the edges, are as released.",
        "Release: neighbours are those in a frame, in the whole grid of detail tiles in LLaVA-NeXT.",
        "Release: anchors and neighbours beyond the budget, an error there, are left out, neighbours first.",
        "Release: one budget per image; the release divides one by the number of tiles in the tower's batch, whose "
        "images share it (`scope=tile`), and drops newline tokens.",
        "Release: original positions are kept (`positions=compact` renumbers as released for LLaVA).",
        "Release: it has LLaVA (block 8) and Qwen2.5-VL (block 15); on other towers the share of the depth is ours.",
    ],
    releases={
        "test_releases_vit.test_hardly_any_token_of_hiprune_is_an_anchor": "At its default alpha a fiftieth of the "
        "budget is anchors: with their neighbours 5 of 64 tokens, 20 of 192, none of 24. Most tokens are those that "
        "the deep layer attends to.",
        "test_methods_vit_2026.test_anchors_come_first_then_their_neighbours": "Neighbours left and right wrap at the "
        "ends of rows; those above the first row are the first token, those below the last row the last.",
    },
)
@dataclass(frozen=True, kw_only=True)
class HiPrune(PreLLM):
    """Anchors of a middle layer with their neighbours, registers of a deep one (HiPrune, arXiv 2508.00553).

    Anchors are the tokens that receive most attention in a middle layer of the tower, where it is on objects; with the
    four tokens around each they are a share of the budget. The rest are the tokens that receive most in a deep layer.

    Cost: O(H N^2 d) for the attention of two blocks.

    Args:
        alpha: share of the budget for anchors and their neighbours.
        object_layer: the middle layer: a block of the tower or, as a fraction of its depth, the first block from there
            on that attends to the whole image. The default is the ninth of 24 in LLaVA-1.5 and the sixteenth of 32 in
            Qwen2.5-VL, as released.
        vision_layer: the deep layer; None for the block that makes the features.
    """

    alpha: Share = 0.1
    object_layer: int | Depth = 3 / 8
    vision_layer: int | None = None

    @property
    def vision_layers(self) -> tuple[TowerLayer, ...]:
        """The middle and the deep layer."""
        return (self.object_layer, self.vision_layer)

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        middle, deep = (view.vision.received(layer) for layer in self.vision_layers)
        return hierarchical(middle, deep, frames(view), round(keep * self.alpha / 5), keep)

    select_batch = select
