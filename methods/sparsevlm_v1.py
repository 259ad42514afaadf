"""SparseVLM v1.0: the rank of the attention matrix decides how many tokens stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import Selection
from uniprune.pruning.fields import NonNegative, Positive
from uniprune.pruning.schedules import Staged, between
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._sparsevlm import raters, recycle, recycled

# Ratio -> scale, as released for 64, 128 and 192 of 576 tokens; from 1/3 on proportional.
PUBLISHED = {0.0: [0.0], 1 / 9: [0.8], 2 / 9: [9.0], 1 / 3: [13.5], 1.0: [40.5]}


@register_method(
    "sparsevlm-v1",
    paper="arXiv 2410.04417",
    code="Gumpest/SparseVLMs",
    deviations=[
        "Paper: the rank decides how many stay, as released.",
        "Release: merged tokens, positions and ties as in `sparsevlm`; one token stays at least.",
    ],
    releases={
        "test_releases_llm.test_rank_decides_how_many_tokens_of_sparsevlm_stay": "A number per rank stays, whatever "
        "the number of tokens; in the paper a share of tokens - rank goes. Of 400 tokens at one rank both keep 13, at "
        "four ranks the release keeps 54 and the paper 16.",
    },
)
@dataclass(frozen=True, kw_only=True)
class SparseVLMv1(Staged):
    """SparseVLM with adaptive sparsity, as first released (Zhang et al., ICML 2025, arXiv 2410.04417), v1.0.

    After layers 2, 6, 15 and 19 of 32, floor(scale x rank + bias) tokens stay, where rank is that of the raters'
    head-mean attention; dropped tokens are recycled as in `sparsevlm`. The ratio is nominal; how many tokens stay
    depends on the data, not on the image's size.

    Cost: a few attention rows, one singular value decomposition and one clustering per stage.

    Args:
        scale: tokens per unit of rank; by default 13.5, 9 or 0.8 for the ratios 1/3, 2/9 and 1/9, as released for 192,
            128 and 64 tokens, interpolated between them and proportional above.
        bias: tokens beyond those.
    """

    layer: NonNegative = 3
    scale: Positive | None = None
    bias: float = 0.0
    kind: ClassVar[str] = "hybrid"
    llm_attention: ClassVar[bool] = True
    reference: ClassVar[tuple[int, ...]] = (3, 7, 16, 20)

    def select(self, view: View, keep: int) -> Tensor | Selection:
        """Everything when the matrix has full rank, else as many as its rank gives, and means of the next ones."""
        attention = view.attention(raters(view)).mean(0)
        scale = between(PUBLISHED, self.ratio)[0] if self.scale is None else self.scale
        count = kept_by_rank(attention, scale, self.bias)
        dropped = len(view.tokens) - count
        if not dropped:
            return torch.arange(count)
        return recycle(view.tokens, attention.mean(0), count, recycled(dropped)[1])


def kept_by_rank(attention: Tensor, scale: float, bias: float) -> int:
    """Return how many columns of `attention` [R, N] stay: scale x rank + bias, at least 1; N when the rank is N."""
    tokens = attention.shape[1]
    rank = int(torch.linalg.matrix_rank(attention.float()))
    return tokens if rank == tokens else min(max(1, int(rank * scale + bias)), tokens - 1)
