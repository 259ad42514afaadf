"""FastV: keep the tokens the last prompt token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method


@register_method(
    "fastv",
    paper="arXiv 2403.06764",
    code="pkunlp-icler/FastV",
    deviations=[
        "Paper: attention is that of the last row, as released.",
        "Release: tokens are ranked once, in prefill, as in the authors' port to transformers. Their first code ranks "
        "again for every generated token, their cached one misplaces positions.",
        "Release: only the last row is computed, so any attention kernel works and no key is cached twice.",
        "UniPruneBench: tokens stay in their places; positions renumbered in prefill only are not offered.",
    ],
    releases={
        "test_releases_llm.test_fastv_ranks_by_one_row_and_not_by_the_mean": "Tokens are ranked by the attention of "
        "the last token, not by the mean over all.",
        "test_golden_llm.test_fastv": "UniPruneBench: kept tokens are in the order of their attention "
        "(`order=release`), which scrambles the image, and its PyramidDrop makes the same choice.",
    },
)
@dataclass(frozen=True, kw_only=True)
class FastV(IntraLLM):
    """Keeps the tokens the last prompt token attends to most (Chen et al., ECCV 2024, arXiv 2403.06764).

    Attention of layer K - 1, mean over heads, pruned before layer K = 2.

    Cost: one attention row.
    """

    llm_attention: ClassVar[bool] = True

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        return top_k(view.attention("last").mean(-3)[..., 0, :], keep)

    select_batch = select
