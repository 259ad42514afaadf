"""FlashVID: tokens unlike the rest of their frame; the others are merged along time, then within frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from uniprune.pruning.base import Selection
from uniprune.pruning.fields import Cosine, Positive, Share
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._flashvid import RELEASES, clustered, picked
from ._segments import OfSegments, likenesses, runs
from ._trees import trees
from ._video import frames


@register_method(
    "flashvid",
    paper="arXiv 2602.08024",
    code="Fanziyang-v/FlashVID",
    licence="MIT",
    deviations=[
        "Release: the budget is met, spread over frames and, in a segment, over what merging leaves. The release "
        "(`counts=release`) rounds up in every frame: 150 tokens instead of 144 of 432 in one stored case.",
        "Release: a chain becomes its mean; the release (`counts=release`) divides by one and its root's links. In a "
        "segment of one frame it clusters picked tokens, too, and may write a place twice (here, the cluster once).",
        "Release: `counts=release` keeps `expansion` times the ratio; the release cuts that to 0.3 before layer 20. "
        "Such a cut is `flashvid+fastv` with fastv.layer=20, each of the two with the root of the ratio.",
        "Release: ties of densities go to the lower index; `counts=release` adds noise to 1e-6, the same always.",
        "Release: an image is one frame. Several grids (tiles, GLM's frames) are refused. Qwen3-VL's marks stay.",
    ],
    releases=RELEASES,
)
@dataclass(frozen=True, kw_only=True)
class FlashVID(OfSegments):
    """Tokens picked for diversity, trees over time for the rest (Fan et al., ICLR 2026, arXiv 2602.08024).

    In every frame tokens far from each other are picked, distances times received attention. Of the others, those alike
    from frame to frame of a segment become their mean; clusters of density reduce what is left to the budget.

    Cost: O(N F D), F tokens per frame; waits for the segments and for what merging leaves of them.

    Args:
        alpha: share of a frame's budget that is picked.
        segments: least number of segments.
        segment_threshold: frames less alike than this are in different segments.
        threshold: tokens more alike than this merge over time, as long as the budget is left.
        vision_layer: block whose attention is used; None for the one that makes the features.
        expansion: how many times the ratio `counts=release` keeps.
        counts: "exact" meets the budget; "release" is the released reading, whose counts miss it.
    """

    alpha: Share = 0.7
    segment_threshold: Cosine = 0.9
    threshold: Cosine = 0.8
    expansion: Positive = 1.25

    def released(self, size: int) -> int:
        return min(size, math.ceil(size * self.ratio * self.expansion))

    def select(self, view: View, keep: int) -> Selection:
        x, draws, kept, tokens = frames(view), self.draws(), [], []
        budgets = self.budgets(keep, *x.shape[:2])
        picks = [math.ceil(self.alpha * budget) for budget in budgets]
        taken = picked(x, view.vision.received(self.vision_layer).view(x.shape[:2]), picks)
        for first, end in runs(likenesses(x), self.segment_threshold, self.segments):
            left, means, budget = ~taken[first:end], x[first:end], sum(budgets[first:end])
            if end - first > 1:
                left, means = trees(means, left, self.threshold, left.numel() - budget, by_links=not self.exact)
            elif not self.exact:
                left = torch.ones_like(left)
            places, merged = clustered(left, means, budget - sum(picks[first:end]), draws)
            kept.append(places + first * x.shape[1])
            taken.view(-1)[kept[-1]] = False
            tokens.append(merged)
        return Selection(torch.cat((taken.flatten().nonzero()[:, 0], *kept)), torch.cat((x[taken], *tokens)))
