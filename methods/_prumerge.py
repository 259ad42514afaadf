"""Shared by PruMerge and PruMerge+: anchors get their neighbours added, one further token sums up the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.fields import Count
from uniprune.pruning.functional import at_least_float32, complement
from uniprune.pruning.merging import merge_with_background
from uniprune.pruning.view import Space, View
from uniprune.pruning.view_batch import ViewBatch

Heads = Literal["joint", "mean"]
DEVIATIONS = (
    "Paper: merged tokens are sums, as released.",
    "Paper: without a CLS token (Qwen2.5-VL), attention is that which a token receives; in every family it is read in "
    "the last block and multiplied by the patches per token, whose keys are averaged.",
    "Release: tokens stay in raster order at the positions of their anchors (`order=release` puts anchors in the "
    "order in which they were chosen; with `positions=compact` that is the released sequence).",
    "Release: fewer than 33 tokens do not crash; a ratio means round(N ratio) tokens in all, not floor(N ratio) + 1.",
)


@dataclass(frozen=True, kw_only=True)
class Merging(PreLLM):
    """Merges all tokens into some of them; subclasses write `anchors`.

    Args:
        adaptive: let the attention decide how many tokens stay; the keep ratio is then ignored and `exact` is False.
        neighbours: tokens added to an anchor.
        heads: "joint" treats all attention heads as one, as the release does; "mean" averages the real ones.
        space: "vision" merges before the projector, "llm" after it.
        vision_layer: block whose queries and keys are used; the default -1 reads LLaVA's features.
    """

    adaptive: bool = False
    neighbours: Count = 32
    heads: Heads = "joint"
    space: Space = "vision"
    vision_layer: int | None = -1

    @property
    def exact(self) -> bool:
        """False if the attention decides."""
        return not self.adaptive

    def anchors(self, attention: Tensor, count: int) -> Tensor:
        """[..., A] tokens to merge into, at least one: `count` by `attention` [..., N], or as many as that suggests."""
        raise NotImplementedError(f"{type(self).__name__} must implement anchors(attention, count)")

    def select(self, view: View | ViewBatch, keep: int) -> Selection:
        """Anchors with what was merged into them, and one further token if there is room for it."""
        attention = view.vision.importance(self.vision_layer, self.heads == "joint") * view.vision.patches
        anchors = self.anchors(attention, max(1, keep - 1))
        free = complement(attention.shape[-1], anchors)
        slots = torch.cat((anchors, free[..., -1:] if self.adaptive or keep > 1 else free[..., :0]), dim=-1)
        features, keys = at_least_float32(view.features(self.space)), view.vision.keys(self.vision_layer)
        merged = merge_with_background(features, anchors, keys, attention, self.neighbours)
        return Selection(slots, view.project(merged[..., : slots.shape[-1], :], self.space))
