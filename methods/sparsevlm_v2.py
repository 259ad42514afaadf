"""SparseVLM+ (v2.0): attention without its positional prior, from the heads that attend to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.budget import keep_count
from uniprune.pruning.fields import Share
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._sparsevlm import TOKENS, Scheduled, raters

PUBLISHED: dict[int, tuple[int, ...]] = {
    0: (0, 0, 0), 64: (66, 34, 20), 96: (246, 54, 28), 128: (238, 108, 60), 192: (300, 200, 118), TOKENS: (TOKENS,) * 3
}  # fmt: skip


@register_method(
    "sparsevlm-v2",
    paper="arXiv 2410.04417",
    code="Gumpest/SparseVLMs",
    deviations=["Paper: unknown; it does not describe this version, whose released code is followed."],
    releases={
        "test_releases_llm.test_the_prior_of_sparsevlm_turns_scores_around": "About 1700 tokens away what rotary "
        "positions alone contribute, by which attention is divided, is below zero: there the least attended tokens "
        "stay.",
    },
)
@dataclass(frozen=True, kw_only=True)
class SparseVLMv2(Scheduled):
    """SparseVLM+, the second version of SparseVLM (Zhang et al., ICML 2025, arXiv 2410.04417), without recycling.

    Attention is divided by what rotary positions alone contribute (the scaled dot product of rotated all-ones vectors),
    then the text raters of `sparsevlm` rank tokens by the heads that give the image most. The prior turns negative at
    large distances (about 1700 for head size 128 and base 1e4, less for smaller heads), and then, as released, so do
    scores.

    The ratio is that of `sparsevlm`, with the schedules of the second version.

    Cost: a few attention rows per stage.

    Args:
        heads: share of the heads that count; the release takes 14 of 32.
    """

    heads: Share = 14 / 32
    published: ClassVar[dict[int, tuple[int, ...]]] = PUBLISHED

    def select(self, view: View, keep: int) -> Tensor:
        rows = raters(view)
        attention = view.attention(rows) / view.attention.rotary_prior(rows)
        heads = max(1, keep_count(len(attention), self.heads))
        return top_k(priority_heads(attention, heads), keep)


def priority_heads(attention: Tensor, heads: int) -> Tensor:
    """[N] mean over rows and over the `heads` heads with the largest sum, of `attention` [H, R, N]."""
    return attention[top_k(attention.sum((1, 2)), heads)].mean((0, 1))
