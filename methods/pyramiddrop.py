"""PyramidDrop: drop a share of the tokens at the start of each quarter of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.fields import NonNegative
from uniprune.pruning.functional import top_k
from uniprune.pruning.schedules import MultiStage
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method


@register_method(
    "pyramiddrop",
    paper="arXiv 2410.17247",
    code="Cooperx521/PyramidDrop",
    deviations=[
        "Release: counts are rounded instead of floored.",
        "Release: original positions are kept; the release renumbers at every stage, which is not offered: decode "
        "steps have one position for all layers, and would need another in every part of the decoder.",
        "Release: several images and grouped-query attention work.",
        "UniPruneBench: tokens are ranked by the layer about to run; its port is its FastV at three layers, on the "
        "scores of the layer before.",
    ],
    releases={
        "test_releases_llm.test_pyramiddrop_cannot_keep_less_than_a_quarter": "At its layers 8, 16 and 24 of 32 the "
        "average over layers is 270 of 576 tokens as released, and above 144 at any ratio: the settings of 192, 128 "
        "and 64 tokens were not published.",
        "test_releases_llm.test_pyramiddrop_of_the_port_multiplies_its_ratio": "UniPruneBench: its port, FastV at "
        "three layers, takes the ratio of what is left three times: 63, 6, then 0 of 576 at 11.1 %.",
    },
)
@dataclass(frozen=True, kw_only=True)
class PyramidDrop(MultiStage):
    """Keeps the same share at several layers, ranked by the last prompt token (Xing et al., arXiv 2410.17247).

    Before layers 8, 16 and 24 of 32, the query of the last prompt token is compared with the visual keys in the layer
    about to run, computed on that layer's input, heads averaged.

    The ratio is the average share from the first pruning layer on. With `budget="paper"` it is the share left at the
    end: the paper halves three times, ratio 0.125, which is 0.292 from layer 8 on and 46.9 % over all layers.

    Cost: one attention row and one key projection per stage.
    """

    layer: NonNegative = 8
    upcoming_attention: ClassVar[bool] = True
    reference: ClassVar[tuple[int, ...]] = (8, 16, 24)

    def shares(self, level: float, layers: Sequence[int], num_layers: int) -> list[float]:
        """Return a geometric sequence that ends at `level`."""
        return [level ** ((stage + 1) / len(layers)) for stage in range(len(layers))]

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        return top_k(view.upcoming("last").mean(-3)[..., 0, :], keep)

    select_batch = select
