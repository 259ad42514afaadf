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
    licence="CC BY-NC",
    deviations=[
        "Release: distances are computed in float32, and a chosen token is never chosen again.",
        "Release: every image is one problem of its own; the release prunes the first image only.",
        "Release: LLaVA-NeXT's newline tokens are neither candidates nor counted.",
        "Release: original positions are kept (`positions=compact` renumbers as released).",
    ],
    releases={
        "test_releases_vit.test_divprune_in_half_precision_picks_other_tokens": "Distances are computed in the "
        "model's precision: in bfloat16 about half of the picks are others.",
        "test_releases_vit.test_divprune_picks_duplicates_again": "A token is picked again when only duplicates of "
        "picks remain, so that fewer tokens stay than were asked for.",
        "test_releases_vit.test_divprune_counts_newlines_as_tokens": "LLaVA-NeXT's newline tokens are candidates. As "
        "all are one vector, of 24 one is kept.",
    },
)
@dataclass(frozen=True, kw_only=True)
class DivPrune(PreLLM):
    """Max-min diversity of projected visual tokens in cosine distance (Alvar et al., CVPR 2025, arXiv 2503.02175).

    Starts from the token whose nearest neighbour is farthest, then adds the token farthest from all chosen ones.

    Cost: O(N^2 D + N keep).
    """

    scale_invariant: ClassVar[bool] = True
    takes_gaps: ClassVar[bool] = True

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        return farthest_points(cosine_distance(view.tokens), keep)

    select_batch = select
