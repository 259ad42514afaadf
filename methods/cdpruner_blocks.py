"""CDPruner in blocks, as OpenVINO GenAI ships it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.fields import NonNegative, Share
from uniprune.pruning.functional import relevance_of_units, unit_vectors
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._cdpruner_blocks import Kernel, in_blocks
from .cdpruner import CDPruner

ODD = "counts=even keeps one more than {} of {} tokens; use counts=exact or a lower ratio"


@register_method(
    "cdpruner-blocks",
    paper="arXiv 2506.10967",
    code="openvinotoolkit/openvino.genai",
    licence="Apache-2.0",
    deviations=[
        "Paper: CDPruner (`cdpruner`) multiplies similarity by both tokens' relevance, and decides an image at once.",
        "Release: a block is half a view: of an image, or of a frame with `scope=grid`, which OpenVINO's default is.",
        "Release: the budget is met; OpenVINO (`counts=even`) adds one to odd counts, and fails beyond all tokens, as "
        "here.",
        "Release: its floors of 1e-6 under norms and pivots are left out; they change no choice of the stored cases.",
        "Release: its fallback, for devices that cannot compile the first, has another formula (`kernel=exponential`).",
    ],
)
@dataclass(frozen=True, kw_only=True)
class CDPrunerBlocks(CDPruner):
    """CDPruner by halves of an image, with a weight of relevance (OpenVINO GenAI; paper: arXiv 2506.10967).

    Of either half of the tokens, with its own scale of relevance, half the budget is chosen.

    Cost: O(N^2 D + N keep^2).

    Args:
        invert: prefer the tokens that are least similar to the question; OpenVINO does for LLaVA.
        kernel: "blend": similarity, and that times both tokens' relevance, by `weight`; "exponential": similarity times
            exponentials of relevance.
        weight: share of relevance.
        split: views of more tokens than this have two blocks; 0 for never.
        counts: "exact" meets the budget; "even" is OpenVINO's count.
    """

    kernel: Kernel = "blend"
    weight: Share = 0.5
    split: NonNegative = 1
    counts: Literal["exact", "even"] = "exact"

    @property
    def exact(self) -> bool:
        return self.counts == "exact"

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        units, keep = unit_vectors(view.tokens), keep if self.exact else keep + keep % 2
        if keep > units.shape[-2]:
            raise UserError(ODD.format(keep - 1, keep - 1))
        similarity = relevance_of_units(units, view.prompt, torch.mean)
        relevance = -similarity if self.invert else similarity
        return in_blocks(units, relevance, keep, self.split, self.kernel, self.weight)

    select_batch = select
