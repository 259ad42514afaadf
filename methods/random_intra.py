"""Random choice inside the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.functional import random_subset, random_subsets
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method


@register_method(
    "random-intra",
    paper="arXiv 2511.02650",
    code="TianfanPeng/VLMUniPruneBench",
    licence="none",
    deviations=[
        "Release: the draw is seeded per sample; the release takes the global generator.",
        "Release: original positions are kept in every family; on InternVL the release renumbers the prefill only.",
        "Release: the count is rounded instead of floored.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class RandomIntra(IntraLLM):
    """Keeps a uniformly random subset of the visual tokens before decoder layer K (UniPruneBench, arXiv 2511.02650).

    Cost: none.
    """

    random: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        return random_subset(len(view.cells), keep, view.generator)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor:
        return random_subsets(batch.cells.shape[1], keep, batch.generators)
