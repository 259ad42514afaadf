"""VisionZip: keep dominant tokens and summarise the others in contextual ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.budget import keep_count
from uniprune.pruning.fields import Share
from uniprune.pruning.functional import at_least_float32, rows_of, top_k
from uniprune.pruning.merging import merge_into_nearest
from uniprune.pruning.view import Space, View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method


@register_method(
    "visionzip",
    paper="arXiv 2412.04467",
    code="dvlab-research/VisionZip",
    deviations=[
        "Paper: the split of the budget is a share, 5 / 32 contextual: the paper's 10, 20 and 30 of 64, 128 and 192.",
        "Paper: without a CLS token importance is the attention received; keys are averaged over a token's patches.",
        "Release: the class token, there a dominant one, is left out (`cls=true` puts it at the first free position).",
        "Release: contextual tokens stay in place (`order=release`, `cls=true`, `positions=compact`: as released).",
        "Release: one budget per image, not per LLaVA-NeXT tile (`scope=tile`).",
    ],
    releases={
        "test_releases_vit.test_contextual_tokens_of_visionzip_are_twice_as_long": "A contextual token is its anchor "
        "plus the mean of its cluster, not a mean of both, and so twice as long as others.",
    },
)
@dataclass(frozen=True, kw_only=True)
class VisionZip(PreLLM):
    """Dominant tokens by CLS attention, contextual ones by merging (Yang et al., CVPR 2025, arXiv 2412.04467).

    Most of the budget goes to the tokens with the most attention of the vision tower. Of the others, evenly spaced ones
    each add the mean of those whose keys are most similar to theirs.

    Cost: O(N d + N K C).

    Args:
        contextual: share of the budget for contextual tokens.
        cls: whether the class token takes one place of the budget (per image).
        space: "vision" merges before the projector, "llm" after it, as other code does where patches are merged.
        vision_layer: block whose attention and keys are used; None for the one that makes the features.
    """

    contextual: Share = 5 / 32
    cls: bool = False
    space: Space = "vision"
    vision_layer: int | None = None

    def select(self, view: View, keep: int) -> Selection:
        return self._select(view, keep, view.vision.cls_tokens(self.vision_layer) if self.cls else None)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Selection | None:
        return None if self.cls else self._select(batch, keep)

    def _select(self, view: View | ViewBatch, keep: int, states: Tensor | None = None) -> Selection:
        context = min(keep - 1, keep_count(keep, self.contextual))
        head = view.tokens[..., :0, :] if states is None else view.vision.project(states[: keep - context])
        importance = view.vision.importance(self.vision_layer)
        dominant, anchors, others = split_tokens(importance, keep - context - head.shape[-2], context)
        features, keys = view.features(self.space), view.vision.keys(self.vision_layer, head_mean=True)
        merged = merge_into_nearest(at_least_float32(features), keys, anchors, others)
        slots = torch.cat((others[..., : head.shape[-2]], dominant, anchors), dim=-1)
        return Selection(slots, torch.cat((head, rows_of(view.tokens, dominant), view.project(merged, self.space)), -2))


def split_tokens(importance: Tensor, dominant: int, contextual: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending indices of the dominant tokens, of evenly spaced anchors among the others, and of all that remain."""
    ranked = top_k(importance, importance.shape[-1])
    best, rest = ranked[..., :dominant].sort().values, ranked[..., dominant:].sort().values
    step = max(1, rest.shape[-1] // max(1, contextual))
    spaced = rest[..., : contextual * step].unflatten(-1, (contextual, step))
    return best, spaced[..., 0], torch.cat((spaced[..., 1:].flatten(-2), rest[..., contextual * step :]), dim=-1)
