"""CDPruner: keep tokens that are diverse among each other and relevant to the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.base import PreLLM
from uniprune.pruning.fields import NonNegative, Share
from uniprune.pruning.functional import relevance_of_units, unit_vectors
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._cdpruner import Kernel, in_blocks

ODD = "counts=even keeps one more than {} of {} tokens; use counts=exact or a lower ratio"


@register_method(
    "cdpruner",
    paper="arXiv 2506.10967",
    code="Theia-4869/CDPruner",
    deviations=[
        "Paper: relevance is the mean cosine between a projected token and the input embeddings of the question's "
        "tokens, in every family, since checkpoints carry no CLIP text tower; the authors advise the same for models "
        "without one.",
        "Paper: the relevance scale spans the whole view, one image with all its tiles.",
        "Release: relevance is not negated; the release negates it, because CLIP's patch-text similarity is inverted "
        "(`invert=true`).",
        "Release: picks stay distinct when the budget exceeds the kernel's rank; the kernel is float32.",
        "Release: LLaVA-NeXT's tiles get one budget and kernel, not one each (`scope=tile`, which scales relevance "
        "per tile, too).",
        "Release: original positions are kept (`positions=compact` renumbers as released).",
        "OpenVINO GenAI: it ships kernel=blend split=1 counts=even scope=grid: halves of a frame, (1 - weight) S + weight "
        "r S r; its fallback, kernel=exponential, is another formula. Its floors of 1e-6 of norms are not added.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class CDPruner(PreLLM):
    """Conditional diversity: a determinantal point process weighted by relevance (NeurIPS 2025, arXiv 2506.10967).

    The kernel is the cosine similarity of projected tokens, scaled on both sides by each token's relevance to the
    question; its greedy MAP set trades diversity for relevance without a coefficient.

    Cost: O(N^2 D + N keep^2).

    Args:
        invert: prefer the tokens that are least similar to the question, as the release does in CLIP's space.
        kernel: how relevance weighs similarity: "product" is the paper's; "blend" and "exponential" are OpenVINO's.
        weight: share of relevance in "blend" and "exponential"; "product" has none.
        split: more tokens than this are two halves, each with its relevance scale and half the picks; 0 for never.
        counts: "exact" meets the budget; "even" adds one to odd counts, as OpenVINO does.
    """

    invert: bool = False
    kernel: Kernel = "product"
    weight: Share = 0.5
    split: NonNegative = 0
    counts: Literal["exact", "even"] = "exact"
    needs_text: ClassVar[bool] = True
    scale_invariant: ClassVar[bool] = True

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
