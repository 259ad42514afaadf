"""SparseVLM+ (v2.0): attention without its positional prior, from the heads that look at the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import Share
from uniprune.pruning.functional import top_k
from uniprune.pruning.schedules import MultiStage, between
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._sparsevlm import TOKENS, raters

# Average tokens -> tokens left after layers 2, 6 and 15 of LLaVA-1.5-7B.
PUBLISHED: dict[int, tuple[int, ...]] = {
    0: (0, 0, 0), 64: (66, 34, 20), 96: (246, 54, 28), 128: (238, 108, 60), 192: (300, 200, 118), TOKENS: (TOKENS,) * 3
}  # fmt: skip


@register_method("sparsevlm-v2", paper="arXiv 2410.04417")
@dataclass(frozen=True, kw_only=True)
class SparseVLMv2(MultiStage):
    """SparseVLM+, the second version of SparseVLM (Zhang et al., ICML 2025, arXiv 2410.04417), without recycling.

    Attention is divided by what rotary positions alone contribute (the scaled dot product of rotated all-ones vectors),
    then the text raters of `sparsevlm` rank tokens by the heads that give the image most.

    Args:
        heads: share of the heads that count; the release takes 14 of 32.

    Budget: as in `sparsevlm`, with the schedules of the second version.

    Differs from the paper in: unknown; the version is described by its code only. Differs from the release in: nothing.
    The prior turns negative at large distances (about 1700 for head size 128 and base 1e4, less for smaller heads), and
    then, as in the release, so do scores. Cost: a few attention rows per stage.
    """

    layer: int = 3
    heads: Share = 14 / 32
    llm_attention: ClassVar[bool] = True
    reference: ClassVar[tuple[int, ...]] = (3, 7, 16)

    def shares(self, level: float, layers: Sequence[int], num_layers: int) -> list[float]:
        """The published schedules, interpolated."""
        table = {budget / TOKENS: [count / TOKENS for count in row] for budget, row in PUBLISHED.items()}
        return between(table, level)[: len(layers)]

    def select(self, view: View, keep: int) -> Tensor:
        """Top tokens by corrected attention."""
        rows = raters(view)
        attention = view.attention(rows) / view.attention.rotary_prior(rows)
        return top_k(priority_heads(attention, max(1, round(self.heads * len(attention)))), keep)


def priority_heads(attention: Tensor, heads: int) -> Tensor:
    """[N] mean over rows and over the `heads` heads with the largest sum, of `attention` [H, R, N]."""
    return attention[top_k(attention.sum((1, 2)), heads)].mean((0, 1))
