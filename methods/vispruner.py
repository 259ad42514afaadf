"""VisPruner: the tokens the vision tower attends to, completed by ones that are unlike the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.fields import Count, Share
from uniprune.pruning.functional import top_k
from uniprune.pruning.thinning import drop_most_similar, exact_cosines
from uniprune.pruning.view import Space, View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

MOST_PAIRS = 2**25
"""Pairs of tokens of the prompts that are decided together: 256 MiB of similarities."""


@register_method(
    "vispruner",
    paper="arXiv 2412.01818",
    code="Theia-4869/VisPruner",
    deviations=[
        "Paper: without a CLS token importance is the mean attention received, as the authors advise, also by patches.",
        "Release: the odd one of an odd number of candidates is in the half thinned out. Similarities are float64.",
        "Release: one budget per image instead of per LLaVA-NeXT tile (`scope=tile`).",
        "Release: original positions are kept (`positions=compact` renumbers as released).",
    ],
    releases={
        "test_releases_vit.test_an_odd_number_of_candidates_ends_vispruner": "An odd number of candidates, as for 63 "
        "of 576 tokens, ends it with an error, as half of it is rounded down in one index and up in the other.",
        "test_releases_vit.test_vispruner_is_chaotic": "A swap of nearly equal similarities changes all later rounds: "
        "over half of the diverse tokens in float16, as released, are not those of float64.",
    },
)
@dataclass(frozen=True, kw_only=True)
class VisPruner(PreLLM):
    """Important tokens by CLS attention, diverse ones by removing duplicates (ICCV 2025, arXiv 2412.01818).

    A share of the budget goes to the tokens with the most attention of the vision tower; the others, ranked by
    attention, are thinned out by similarity, a few at a time, until the rest of the budget is left.

    Cost: O(N^2 C), then (N - keep) / step rounds of O(N^2).

    Args:
        important: share of the budget for the tokens with the most attention; the authors use up to 0.75 for 64 tokens.
        step: most tokens removed in one round.
        space: features that are compared: "vision" before the projector, "llm" after it (the authors' advice where the
            projector merges patches).
        vision_layer: block whose attention is used; None for the one that makes the features.
    """

    important: Share = 0.5
    step: Count = 8
    space: Space = "vision"
    vision_layer: int | None = None
    scale_invariant: ClassVar[bool] = True

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        importance = view.vision.importance(self.vision_layer)
        important = int(keep * self.important)
        return important_and_diverse(view.features(self.space), importance, important, keep, self.step)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor | None:
        # The similarities of a large batch would need more memory than the prefill does.
        return self.select(batch, keep) if len(batch) * batch.tokens.shape[1] ** 2 <= MOST_PAIRS else None


def important_and_diverse(features: Tensor, importance: Tensor, important: int, keep: int, step: int) -> Tensor:
    """[..., keep] indices: the `important` best by `importance` [..., N], then those least alike.

    Compared are the `features` [..., N, C].
    """
    ranked = top_k(importance, importance.shape[-1])
    diverse = drop_most_similar(exact_cosines(features), ranked[..., important:], keep - important, step)
    return torch.cat((ranked[..., :important], diverse), dim=-1)
