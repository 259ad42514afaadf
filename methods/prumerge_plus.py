"""LLaVA-PruMerge+: attention outliers and evenly spaced tokens, with the others merged into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

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


@register_method("prumerge+", paper="arXiv 2403.15388")
@dataclass(frozen=True, kw_only=True)
class PruMergePlus(PreLLM):
    """PruMerge with evenly spaced anchors beside the outliers (Shang et al., ICCV 2025, arXiv 2403.15388).

    Anchors are the outliers of CLS attention and, so that no region is lost, tokens at even distances; each adds the
    attention-weighted sum of the tokens whose keys are most similar, and one further token sums up all others.

    Differs from the paper in: the number of tokens is the budget, further token included, unless `adaptive`: outliers
    come first, the rest of the budget is spaced evenly over the other tokens; merged tokens are sums, not averages.
    Differs from the release in: as PruMerge here (raster order unless `order="release"`, counts, short sequences). Its
    fixed-ratio variant, made for training, is not offered: it picks tokens twice. `adaptive` spaces tokens as released,
    up to the last token but one, in any size of grid.
    Families: CLS attention in LLaVA and InternVL, received attention in Qwen2.5-VL, each from the last block, times the
    patches per token; keys averaged over a token's patches; merging happens before the projector. Spacing runs along
    the raster, whatever the grid; system prompts play no role.
    Cost: O(N C) for attention, O(K N C) for merging.

    Args:
        adaptive: the release's own count, about 25 % on LLaVA-1.5. The keep ratio is then ignored, `exact` is False.
        neighbours: tokens added to an anchor.
        heads: "joint" treats all attention heads as one, as the release does; "mean" averages the real ones.
        order: "release" puts outliers by falling attention, then spaced tokens, then the further one.
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
        anchors = released_anchors(attention) if self.adaptive else spaced_anchors(attention, max(1, keep - 1))
        spare = complement(len(attention), anchors)[-1:] if self.adaptive or keep > 1 else anchors[:0]
        slots = torch.cat((anchors, spare))
        features, keys = at_least_float32(view.features(self.space)), view.vision.keys(self.vision_layer)
        merged = merge_with_background(features, anchors, keys, attention, self.neighbours)
        tokens = view.project(merged[: len(slots)], self.space)
        return in_order(slots, tokens) if self.order == "release" else Selection(slots, tokens)


def spaced_anchors(attention: Tensor, count: int) -> Tensor:
    """[count] outliers by falling attention (at least one), then tokens evenly spaced among the others."""
    outliers = top_k(attention, min(count, max(1, count_outliers(attention))))
    others, spaced = complement(len(attention), outliers), count - len(outliers)
    places = (2 * torch.arange(spaced, device=others.device) + 1) * len(others) // (2 * max(1, spaced))
    return torch.cat((outliers, others[places]))


def released_anchors(attention: Tensor) -> Tensor:
    """[A] outliers by falling attention, then every s-th token that is none; s is a third of tokens per outlier."""
    total, count = len(attention), max(1, count_outliers(attention))
    stride = max(1, int(int(1 / (count / total)) / 3))
    outliers = top_k(attention, count)
    spaced = torch.arange(0, total - 1, stride, device=attention.device)
    return torch.cat((outliers, spaced[~torch.isin(spaced, outliers)]))
