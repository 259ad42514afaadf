"""FastVID: segments of alike frames, whose last frames keep tokens and take in the others'."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from uniprune.pruning.base import Selection
from uniprune.pruning.fields import Cosine, Count, Share
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._fastvid import RELEASES, compressed, planned
from ._segments import OfSegments, likenesses, runs
from ._video import frames


@register_method(
    "fastvid",
    paper="arXiv 2503.11187",
    code="LunarShen/FastVID",
    licence="MIT",
    deviations=[
        "Release: the budget is met: each segment has its frames' share of it, and what its frames cannot hold goes to "
        "the segment's most attended tokens.",
        "Release: the rule is that of its Qwen2.5-VL code; for LLaVA all frames keep tokens and the threshold is 0.9.",
        "Release: attention is what a token receives, mean over queries; the release attends from the mean query of a "
        "frame to the mean keys of merged patches.",
        "Release: ties of densities go to the lower index; the release adds random noise up to 1e-6, which is the same "
        "for every prompt and seed with `counts=release`.",
        "Release: as released, tokens go into every frame that takes any in, and a frame's own such tokens into the "
        "others, too.",
        "Release: fewer frames than `segments`, an image among them, are segments of one frame; the release fails. "
        "A view with several grids is refused: tiles, or GLM's frames.",
    ],
    releases=RELEASES,
)
@dataclass(frozen=True, kw_only=True)
class FastVID(OfSegments):
    """Dynamic density pruning of videos (Shen et al., NeurIPS 2025, arXiv 2503.11187).

    A video is cut where the mean tokens of two frames differ. A segment is cut again, less coarsely, and only the last
    frames of these runs keep tokens: the most attended, and centres of density, which are averaged with the segment's
    other tokens.

    Cost: O(N (F + keep) D), F tokens per frame; waits once for the segments.

    Args:
        segments: least number of segments.
        threshold: frames less alike than this are in different segments.
        inner_threshold: the same for the runs of a segment.
        context: share of the budget that takes in other tokens.
        period: every how many runs of a segment, from its last, take in tokens.
        least: least weight of a token in its mean with others.
        vision_layer: block whose attention is used; None for the one that makes the features.
        counts: "exact" meets the budget; "release" is the released reading, whose caps lose tokens.
    """

    threshold: Cosine = 0.84
    inner_threshold: Cosine = 0.95
    context: Share = 0.4
    period: Count = 4
    least: Share = 0.6

    def released(self, size: int) -> int:
        return max(1, math.floor(size * self.ratio))

    def select(self, view: View, keep: int) -> Selection:
        x, draws, parts, ratios = frames(view), self.draws(), [], (self.context, self.period)
        (steps, size), alike, budgets = x.shape[:2], likenesses(x), self.budgets(keep, *x.shape[:2])
        attention = view.vision.received(self.vision_layer).view(steps, size)
        for first, end in runs(alike, self.threshold, self.segments):
            if budget := sum(budgets[first:end]):
                last = [stop - 1 for _, stop in runs(alike[first : end - 1], self.inner_threshold)]
                plan, least = planned(last, size, budget, *ratios), budget if self.exact else 0
                own = compressed(x[first:end], attention[first:end], plan, least, self.least, draws)
                parts.append((own[0] + first * size, own[1]))
        return Selection(*map(torch.cat, zip(*parts, strict=True)))
