"""HoloV: the image's runs of tokens share the budget by their attention, and spend it on their most attended tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.fields import Count
from uniprune.pruning.functional import complement
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._holov import most_attended

Overflow = Literal["refill", "zeros"]


@register_method(
    "holov",
    paper="arXiv 2510.02912",
    code="obananas/HoloV",
    licence="Apache-2.0",
    deviations=[
        "Paper: crops are runs of the raster, as released, and features are left out: the choice is the released one.",
        "Release: one token is a crop that gets nothing beside longer ones. The same here.",
        "Release: what crops get beyond their size goes to the others by their weights (`overflow=zeros`: as released; "
        "tokens of zeros replace the first ones that were not chosen).",
        "Release: without `crops` their number follows the released Qwen2.5-VL code, which is 16 for 64 of 576 tokens, "
        "8 for 128, 5 for 192; the LLaVA code has 16 crops and 64 tokens only.",
        "Release: on Qwen2.5-VL received attention is put into raster order; the release leaves it in window order, "
        "and may prune the image's start marker but never its last token. Other towers without CLS do as Qwen2.5-VL's; "
        "that is ours.",
        "Release: original positions are kept (`positions=compact` renumbers as released for LLaVA).",
    ],
    releases={
        "test_methods_vit_2026.test_features_have_no_effect_on_holov_as_released": "Features have no effect: the term "
        "of similarities is scaled to the mean attention of its crop, so it multiplies the scores of all crops by one "
        "number. The weight of the term, and crops' features, change no choice; crops are runs of the raster.",
        "test_methods_vit_2026.test_what_overflows_goes_to_other_runs": "What a crop gets beyond its size becomes "
        "tokens of zeros (`overflow=zeros`).",
        "test_methods_vit_2026.test_runs_of_one_token_get_nothing_beside_longer_ones": "A crop of one token gets "
        "nothing beside longer ones, as its score alone is not multiplied by 1000.",
    },
)
@dataclass(frozen=True, kw_only=True)
class HoloV(PreLLM):
    """Attention per crop sets its budget, attention within the crop its tokens (HoloV, NeurIPS 2025, arXiv 2510.02912).

    The tokens of an image, base and detail tiles together, are cut into runs of equal size. A run's share of the budget
    is its mean attention's share of all, so that no run is left out; its most attended tokens fill it.

    Cost: O(N log N).

    Args:
        crops: number of runs; None for 1024 N / (576 keep), rounded down.
        overflow: use of the part of a share that exceeds the size of its run: "refill" gives it to other runs,
            "zeros" keeps tokens of zeros in their stead.
        vision_layer: block whose attention is used; None for the one that makes the features.
    """

    crops: Count | None = None
    overflow: Overflow = "refill"
    vision_layer: int | None = None

    def select(self, view: View, keep: int) -> Selection:
        chosen = most_attended(view.vision.importance(self.vision_layer), self.crops, keep, self.overflow == "refill")
        empty = complement(len(view.tokens), chosen)[: keep - len(chosen)]
        zeros = view.tokens.new_zeros(len(empty), view.tokens.shape[1])
        return Selection(torch.cat((chosen, empty)), torch.cat((view.tokens[chosen], zeros)) if len(empty) else None)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor | None:
        attention = batch.vision.importance(self.vision_layer)
        return most_attended(attention, self.crops, keep, refill=True) if self.overflow == "refill" else None
