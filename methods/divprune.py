"""DivPrune: keep the most diverse tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import cosine_distance
from uniprune.pruning.greedy import farthest_points
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method


@register_method(
    "divprune",
    paper="arXiv 2503.02175",
    code="vbdi/divprune",
    deviations=[
        "Release: distances are computed in float32. In the model's dtype, as released, they decide little (about "
        "half of the picks change in bfloat16), so that is not offered.",
        "Release: a chosen token is never chosen again when only duplicates remain.",
        "Release: every image is one problem of its own; the release prunes the first image only.",
        "Release: LLaVA-NeXT's newline tokens, all alike, are neither candidates nor counted.",
        "Release: original positions are kept (`positions=compact` renumbers as released).",
    ],
)
@dataclass(frozen=True, kw_only=True)
class DivPrune(PreLLM):
    """Max-min diversity of projected visual tokens in cosine distance (Alvar et al., CVPR 2025, arXiv 2503.02175).

    Starts from the token whose nearest neighbour is farthest, then adds the token farthest from all chosen ones.

    Cost: O(N^2 D + N keep).
    """

    scale_invariant: ClassVar[bool] = True

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        return farthest_points(cosine_distance(view.tokens), keep)

    select_batch = select
