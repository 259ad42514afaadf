"""VisionTrim: tokens that the tower attends to, and tokens of the question with the others merged into them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from uniprune.pruning.base import Selection
from uniprune.pruning.budget import keep_count
from uniprune.pruning.fields import Share
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._question import Text, WithTextTower, in_space
from ._visiontrim import complemented, dominance


@register_method(
    "visiontrim",
    paper="arXiv 2601.22674",
    code="hanxunyu/VisionTrim",
    licence="Apache-2.0",
    deviations=[
        "Paper: the half in the tower only, as released: pruning in the language model is commented out there.",
        "Paper: token affinity and adaptive weights are left out, as the release overwrites them.",
        "Paper: the question is compared in the language model's space, projected tokens with input embeddings as in "
        "MMTok, since no checkpoint carries CLIP's text tower; tokens are merged there, too. This is ours "
        "(`text=tower` with `text_checkpoint`, the CLIP model of the vision tower, is the release).",
        "Paper: without a CLS token nothing is released; scores are then the attention received alone. This is ours.",
        "Release: the split of the budget is a share, a quarter complement: the release's 16 of 64.",
        "Release: complement tokens stay at their places; there they follow the others (`order=release`). Original "
        "positions are kept (`positions=compact` renumbers as released).",
        "Release: one budget per image; its code for LLaVA-NeXT's tiles does not work (`scope=tile`).",
    ],
    releases={
        "test_releases_2026.test_features_have_no_effect_on_dominant_tokens_of_visiontrim": "Its local half is thrown "
        "away: affinity to neighbours and adaptive weights are computed, then overwritten by half of the CLS "
        "attention and half of the attention received.",
    },
)
@dataclass(frozen=True, kw_only=True)
class VisionTrim(WithTextTower):
    """Dominant tokens by two kinds of attention, complement tokens by the question (ICLR 2026, arXiv 2601.22674).

    Dominant tokens have most attention of the CLS token and of other patches. Of the rest, those nearest to the
    question's tokens are anchors, to which the mean of the tokens that are near the same words is added three times.

    Cost: O(H N^2 d) for attention, O(N T M) a round.

    Args:
        complement: share of the budget for complement tokens.
        vision_layer: block whose attention is used; None for the one that makes the features.
    """

    complement: Share = 1 / 4
    text: Text = "llm"
    vision_layer: int | None = None

    def select(self, view: View, keep: int) -> Selection:
        count = min(keep - 1, keep_count(keep, self.complement))
        best = top_k(dominance(view.vision, self.vision_layer), keep - count).sort().values
        space, words, project = in_space(view, self.text)
        anchors, merged = complemented(view.features(space), best, count, words, project)
        merged = view.project(merged, space).to(view.tokens)
        return Selection(torch.cat((best, anchors)), torch.cat((view.tokens[best], merged)))
