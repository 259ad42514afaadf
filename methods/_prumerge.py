"""What PruMerge and PruMerge+ share: anchors get their neighbours added, one further token sums up the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uniprune.pruning.base import Count, PreLLM, Selection
from uniprune.pruning.functional import at_least_float32, complement, merge_with_background
from uniprune.pruning.view import Space, View

Heads = Literal["joint", "mean"]


@dataclass(frozen=True, kw_only=True)
class Merging(PreLLM):
    """Merges all tokens into some of them; subclasses write `anchors`.

    Args:
        adaptive: let the attention decide how many tokens stay; the keep ratio is then ignored and `exact` is False.
        neighbours: tokens added to an anchor.
        heads: "joint" treats all attention heads as one, as the release does; "mean" averages the real ones.
        order: "raster" keeps tokens at the positions of their anchors, the further token at the last free position;
            "release" puts anchors in the order in which they were chosen, then the further token.
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
        """Unless the attention decides."""
        return not self.adaptive

    def anchors(self, attention: Tensor, count: int) -> Tensor:
        """[A] distinct tokens to merge into, at least one: `count` by `attention` [N], or as many as it says."""
        raise NotImplementedError(f"{type(self).__name__} must implement anchors(attention, count)")

    def select(self, view: View, keep: int) -> Selection:
        """Anchors with what was merged into them, and one further token if there is room for it."""
        attention = view.vision.importance(self.vision_layer, self.heads == "joint") * view.vision.patches
        anchors = self.anchors(attention, max(1, keep - 1))
        free = complement(len(attention), anchors)
        slots = torch.cat((anchors, free[-1:] if self.adaptive or keep > 1 else free[:0]))
        features, keys = at_least_float32(view.features(self.space)), view.vision.keys(self.vision_layer)
        merged = merge_with_background(features, anchors, keys, attention, self.neighbours)
        tokens = view.project(merged[: len(slots)], self.space)
        return Selection(slots, tokens)
