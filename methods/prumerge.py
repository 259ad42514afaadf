"""LLaVA-PruMerge: keep attention outliers and merge the others into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from uniprune.checks import check_choice, check_count
from uniprune.pruner import PreLLM, Selection
from uniprune.registry import register_method
from uniprune.selection import (
    at_least_float32,
    complement,
    count_outliers,
    in_order,
    merge_with_background,
    top_k,
)
from uniprune.view import Space, View

Heads = Literal["joint", "mean"]
Order = Literal["raster", "release"]


@register_method("prumerge", paper="arXiv 2403.15388")
@dataclass(frozen=True, kw_only=True)
class PruMerge(PreLLM):
    """Attention outliers, enriched by their nearest neighbours (Shang et al., ICCV 2025, arXiv 2403.15388).

    The tokens with the most CLS attention become anchors; each adds the attention-weighted sum of the tokens whose keys
    are most similar, and one further token sums up everything that is no anchor.

    Differs from the paper in: the number of tokens is the budget, further token included, unless `adaptive`; merged
    tokens are sums, as in the release, not weighted averages.
    Differs from the release in: tokens stay in raster order at the positions of their anchors, the further token at the
    last free position (`order="release"` puts them by falling attention; together with `positions="compact"` that is
    the released sequence); fewer than 33 tokens do not crash; a ratio means round(N ratio) tokens in all, not
    floor(N ratio) + 1.
    Families: CLS attention in LLaVA and InternVL, received attention in Qwen2.5-VL, each from the last block, times the
    patches per token; keys averaged over a token's patches; merging happens before the projector. Grids and system
    prompts play no role.
    Cost: O(N C) for attention, O(K N C) for merging.

    Args:
        adaptive: let the attention decide: as many anchors as outliers of the interquartile range (about 5.5 % on
            LLaVA-1.5), and the further token. The keep ratio is then ignored and `exact` is False.
        neighbours: tokens added to an anchor.
        heads: "joint" treats all attention heads as one, as the release does; "mean" averages the real ones.
        order: see above.
        space: "vision" merges before the projector, "llm" after it.
        vision_layer: block whose queries and keys are used; the default -1 reads LLaVA's features.
    """

    adaptive: bool = False
    neighbours: int = 32
    heads: Heads = "joint"
    order: Order = "raster"
    space: Space = "vision"
    vision_layer: int | None = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("neighbours", self.neighbours)
        check_choice("heads", self.heads, Heads)
        check_choice("order", self.order, Order)
        check_choice("space", self.space, Space)
        object.__setattr__(self, "exact", not self.adaptive)

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        """The one layer."""
        return (self.vision_layer,)

    def select(self, view: View, keep: int) -> Selection:
        attention = view.vision.importance(self.vision_layer, self.heads == "joint") * view.vision.patches
        budget = count_outliers(attention) + 1 if self.adaptive else keep
        anchors = top_k(attention, max(1, budget - 1))
        spare = complement(len(attention), anchors)[-1:] if budget > len(anchors) else anchors[:0]
        slots = torch.cat((anchors, spare))
        features, keys = at_least_float32(view.features(self.space)), view.vision.keys(self.vision_layer)
        merged = merge_with_background(features, anchors, keys, attention, self.neighbours)
        tokens = view.project(merged[: len(slots)], self.space)
        return in_order(slots, tokens) if self.order == "release" else Selection(slots, tokens)
