"""VisionZip: keep dominant tokens and summarise the others in contextual ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection, Share
from uniprune.pruning.functional import at_least_float32, complement, merge_into_nearest, top_k
from uniprune.pruning.view import Space, View
from uniprune.registry import register_method


@register_method("visionzip", paper="arXiv 2412.04467")
@dataclass(frozen=True, kw_only=True)
class VisionZip(PreLLM):
    """Dominant tokens by CLS attention, contextual ones by merging (Yang et al., CVPR 2025, arXiv 2412.04467).

    Most of the budget goes to the tokens with the most attention of the vision tower. Of the others, evenly spaced ones
    each add the mean of those whose keys are most similar to theirs.

    Differs from the paper in: the split of the budget is a share, 5 / 32 contextual, that gives the paper's 10, 20 and
    30 of 64, 128 and 192.
    Differs from the release in: it also hands the class token to the language model and counts it as dominant; here
    only with `cls=True`, at the first free position, because other families cannot project it. Contextual tokens stay
    at their anchors' positions instead of following behind (`order="release"`; together with `cls=True` and
    `positions="compact"` that is the released sequence). It gives each LLaVA-NeXT tile a budget (`scope="tile"`).
    Families: CLS attention in LLaVA and InternVL, received attention in Qwen2.5-VL; keys averaged over a token's
    patches; merging before the projector. Grids and system prompts play no role.
    Cost: O(N d + N K C).

    Args:
        contextual: share of the budget for contextual tokens.
        cls: whether the class token takes one place of the budget (per image).
        order: see above.
        space: "vision" merges before the projector, "llm" after it, as other code does where patches are merged.
        vision_layer: block whose attention and keys are used; None for the one that makes the features.
    """

    contextual: Share = 5 / 32
    cls: bool = False
    space: Space = "vision"
    vision_layer: int | None = None

    def select(self, view: View, keep: int) -> Selection:
        context = min(keep - 1, max(1, round(keep * self.contextual))) if self.contextual else 0
        head = view.tokens[:0]
        if self.cls:
            head = view.vision.project(view.vision.cls_tokens(self.vision_layer)[: keep - context])
        importance = view.vision.importance(self.vision_layer)
        dominant, anchors, others = split_tokens(importance, keep - context - len(head), context)
        features, keys = (
            at_least_float32(view.features(self.space)),
            view.vision.keys(self.vision_layer, head_mean=True),
        )
        merged = merge_into_nearest(features, keys, anchors, others)
        tokens = torch.cat((head, view.tokens[dominant], view.project(merged, self.space)))
        chosen = torch.cat((dominant, anchors))
        slots = torch.cat((complement(len(keys), chosen)[: len(head)], chosen))
        return Selection(slots, tokens)


def split_tokens(importance: Tensor, dominant: int, contextual: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending indices of the dominant tokens, of evenly spaced anchors among the others, and of all that remain."""
    best = top_k(importance, dominant).sort().values
    rest = complement(len(importance), best)
    step = max(1, len(rest) // max(1, contextual))
    anchors = rest[::step][:contextual]
    return best, anchors, rest[~torch.isin(rest, anchors)]
