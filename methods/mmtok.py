"""MMTok: always add the token that covers most of the question and of the other tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.coverage import each_most_covering, most_covering
from uniprune.pruning.fields import Positive, Weight
from uniprune.pruning.functional import cosine_similarity
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._mmtok import shares, tower_features


@register_method(
    "mmtok",
    paper="arXiv 2508.18264",
    code="Ironieser/MMTok",
    licence="Apache-2.0",
    deviations=[
        "Paper, where only code is known: the tower's features are compared as they are, without CLIP's projection.",
        "Release: the text is the whole question in every family; for LLaVA the release removes two answer-format "
        "sentences and 47 words, among them what and where, prompts of other templates than Vicuna's become a fixed "
        "question; for Qwen it prepends a word.",
        "Release: patches that are padding of LLaVA-1.5's square images are excluded there; views do not know padding.",
        "Release: features of merged patches are averaged, as for Qwen2.5-VL before its last norm; elsewhere, ours.",
        "Release: similarities are float32; there features are normalised in the model's precision.",
        "Release: `text_temperature` is 0.01 for Qwen2.5-VL; LLaVA-NeXT's tiles have a budget each (`scope=tile`).",
        "Release: original positions are kept (`positions=compact` renumbers as released for LLaVA).",
    ],
    releases={
        "test_releases_vit.test_mmtok_repeats_a_token_if_padding_leaves_too_few": "Where an image without its padding "
        "has fewer tokens than the budget, the first token is repeated.",
    },
)
@dataclass(frozen=True, kw_only=True)
class MMTok(PreLLM):
    """Coverage of the question and of all visual tokens, picked greedily (MMTok, ICLR 2026, arXiv 2508.18264).

    Every word of the question, and every visual token, spreads one unit over the visual tokens by the softmax of its
    similarity to them; kept tokens cover it as far as the best of them has a part of it. Added is always the token
    with the largest gain in the mean coverage of words plus `alpha` times that of visual tokens.

    Cost: O((M + N) N C), then O((M + N) N) per kept token.

    Args:
        alpha: weight of the coverage of visual tokens; 0 is the question only.
        text_temperature: of the softmax over similarities to the question, which are those of projected tokens.
        visual_temperature: of the softmax over similarities among visual tokens, which are those of the tower.
    """

    alpha: Weight = 0.5
    text_temperature: Positive = 0.02
    visual_temperature: Positive = 0.2
    needs_text: ClassVar[bool] = True
    scale_invariant: ClassVar[bool] = True

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        """The one that makes the features, for the width of a patch."""
        return (None,)

    def select(self, view: View, keep: int) -> Tensor:
        return most_covering(self._covers(view.prompt, view.tokens, tower_features(view)), keep)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor:
        each = zip(batch.prompt, batch.tokens, tower_features(batch), strict=True)
        return each_most_covering([self._covers(*one) for one in each], keep)

    def _covers(self, prompt: Tensor, tokens: Tensor, features: Tensor) -> Tensor:
        words = shares(cosine_similarity(prompt, tokens), self.text_temperature)
        visual = shares(cosine_similarity(features), self.visual_temperature)
        return torch.cat((words, self.alpha * visual)).T.contiguous()
