"""SparseVLM (arXiv 2410.04417) for answer tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.functional import cosine_similarity, top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens(
    "sparsevlm",
    paper="arXiv 2410.04417",
    deviations=[
        'Q-Tuning (arXiv 2509.23873) describes its version only as one that "combined attention and hidden-state '
        'features to score token importance"; this is one reading of it.'
    ],
)
@dataclass(frozen=True, kw_only=True)
class SparseVLMTokens(TokenStrategy):
    """Rank answer tokens by received attention times dissimilarity.

    Received attention is the mean from the token itself and the later answer tokens (its raters) in the last layer;
    dissimilarity is 1 - mean cosine of its last hidden state to all of the answer's.
    """

    attention: ClassVar[str] = "answer"
    states: ClassVar[bool] = True

    def select(self, view: TokenView, keep: int) -> Tensor:
        raters = torch.arange(view.count, 0, -1, device=view.attention.device)
        received = view.attention.sum(0) / raters
        return top_k(received * (1 - cosine_similarity(view.states, view.states).mean(0)).clamp_min(0), keep)
