"""V2Drop: drop the tokens whose states change least from one layer to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, pairwise_distance

from uniprune.pruning.fields import NonNegative, Share
from uniprune.pruning.functional import at_least_float32, top_k
from uniprune.pruning.looks import Look, Passage
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._cuts import Cuts


@register_method(
    "v2drop",
    paper="arXiv 2509.01552",
    code="xuyang-liu16/V2Drop",
    licence="Apache-2.0",
    deviations=[
        "Paper: the measure is the length of the difference, as released; there a cosine is commented out.",
        "Release: counts are rounded, of the tokens at the first cut, instead of floored at each; other ratios than "
        "the released ones, for which it has no option, are interpolated.",
        "Release: prompts of any layout and several images work; LLaVA's copy takes tokens 35 to 610 of every longer "
        "prompt for the image. Differences are taken in float32.",
        "Release: Qwen2-VL's copy cuts before layers 3, 16 and 22 of 28 to 1/4, 1/80 and one token: `layers=[3,16,22] "
        "left=[0.25,0.0125,0]`.",
        "Release: it has no copy for decoders that add visual features after layers (deepstack); here they are change.",
    ],
    releases={
        "test_releases_2026.test_a_ratio_of_nothing_leaves_v2drop_a_token": "A ratio of 0 leaves one token: visual "
        "tokens never vanish.",
    },
)
@dataclass(frozen=True, kw_only=True)
class V2Drop(Cuts):
    """Drops the tokens that the layer before changes least (Chen et al., CVPR 2026, arXiv 2509.01552).

    Before layers 3, 17 and 22 of 32, tokens are ranked by the length of what layer K - 1 has added to their states.

    The ratio is the average share from the first pruning layer on. With `budget="paper"` it is the share that the first
    cut leaves: as released 0.5, then 0.25 and one token, 35 % over all layers of 576 tokens.

    Cost: one difference per stage, no attention.
    """

    layer: NonNegative = 3
    left: tuple[Share, ...] = (0.5, 0.25, 0.0)
    reference: ClassVar[tuple[int, ...]] = (3, 17, 22)
    named: ClassVar[int] = 0

    def looks(self, layers: Sequence[int]) -> list[Look]:
        return [Look(layer - 1) for layer in layers]

    def look(self, passage: Passage) -> Tensor:
        return pairwise_distance(at_least_float32(passage.leaving), at_least_float32(passage.entering), eps=0)

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        return top_k(view.seen[-1], keep)

    select_batch = select
