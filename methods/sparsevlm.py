"""SparseVLM: text tokens that matter to the image rank its tokens; dropped ones are recycled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import Selection
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._sparsevlm import TOKENS, Scheduled, raters, recycle, recycled

# Recycled tokens included.
PUBLISHED: dict[int, tuple[int, ...]] = {
    0: (0, 0, 0), 64: (82, 32, 18), 96: (249, 55, 27), 128: (312, 117, 39), 192: (309, 204, 113), TOKENS: (TOKENS,) * 3
}  # fmt: skip


@register_method(
    "sparsevlm",
    paper="arXiv 2410.04417",
    code="Gumpest/SparseVLMs",
    deviations=[
        "Paper: ranks do not decide how many tokens stay, as in the released v1.5 (`sparsevlm-v1` has that).",
        "Release: a merged token takes the slot and position of its cluster's centre instead of the end of the image.",
        "Release: original positions are kept instead of renumbered (see `pyramiddrop`).",
        "Release: ties between mutual nearest neighbours go to the lower index instead of to random noise.",
    ],
    releases={
        "test_releases_llm.test_tokens_of_sparsevlm_are_counted_after_the_layers_that_prune": "Its 192 tokens are the "
        "average of what leaves the layers; 206.5 enter them.",
    },
)
@dataclass(frozen=True, kw_only=True)
class SparseVLM(Scheduled):
    """Ranks visual tokens by the attention of selected text tokens (Zhang et al., ICML 2025, arXiv 2410.04417), v1.5.

    Text raters are the tokens after the image to which its embeddings are most similar. After layers 2, 6 and 15 of
    32, the best tokens stay, the best of the others are clustered, and each cluster's mean stays too.

    The ratio counts kept and recycled tokens together, on average from the first pruning layer on. With
    `budget="paper"` it names a published schedule, 1/3, 2/9, 1/6 or 1/9 for 192, 128, 96 or 64 tokens (averages of what
    leaves each layer); others are interpolated, layer numbers and counts are scaled with depth and image size.

    Cost: a few attention rows and one clustering per stage.
    """

    published: ClassVar[dict[int, tuple[int, ...]]] = PUBLISHED

    def select(self, view: View, keep: int) -> Selection:
        return recycle(view.tokens, rated(view), *split_budget(len(view.tokens), keep))

    def select_batch(self, batch: ViewBatch, keep: int) -> Selection:
        scores = torch.stack([rated(view) for view in batch.views])  # raters are not equally many
        return recycle(batch.tokens, scores, *split_budget(scores.shape[1], keep))


def rated(view: View) -> Tensor:
    """[N] mean attention of the text raters, over heads."""
    return view.attention(raters(view)).mean((0, 1))


def split_budget(tokens: int, keep: int) -> tuple[int, int]:
    """Return (kept, clusters) that sum to `keep`: as many kept as leave room for the clusters of the dropped tokens.

    309 of 576 are 300 and 9 clusters. Budgets below the clusters of everything recycle nothing.
    """
    for kept in range(keep, -1, -1):
        clusters = recycled(tokens - kept)[1]
        if kept + clusters == keep:
            return kept, clusters
    return keep, 0
