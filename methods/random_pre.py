"""Random choice before the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import random_subset, random_subsets
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method


@register_method(
    "random-pre",
    paper="arXiv 2511.02650",
    code="TianfanPeng/VLMUniPruneBench",
    licence="none",
    deviations=[
        "Release: kept tokens stay in raster order in every family.",
        "Release: the draw is seeded per sample, so it depends on neither batch nor order.",
        "Release: an image has one budget; on InternVL the release gives the first tile one and all others another.",
        "Release: the count is rounded instead of floored.",
    ],
    releases={
        "test_releases_vit.test_random_tokens_reach_the_model_shuffled": "UniPruneBench: on InternVL tokens reach the "
        "language model in the order of the draw (`order=release`), so its numbers are of a shuffled image.",
    },
)
@dataclass(frozen=True, kw_only=True)
class RandomPre(PreLLM):
    """Keeps a uniformly random subset of each image's tokens (baseline of UniPruneBench, arXiv 2511.02650).

    Cost: none.
    """

    random: ClassVar[bool] = True
    takes_gaps: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        return random_subset(view.total, keep, view.generator)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor:
        return random_subsets(batch.views[0].total, keep, batch.generators)
