"""SparseVLM for answers: attention of the answer's own tokens, less for what is said already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.functional import cosine_similarity, top_k
from uniprune.tuning.strategy import TokenStrategy, TokenView, register_tokens


@register_tokens("sparsevlm", paper="arXiv 2410.04417")
@dataclass(frozen=True, kw_only=True)
class SparseVLMTokens(TokenStrategy):
    """Ranks answer tokens by attention and hidden states together.

    The Q-Tuning paper says only that it "combined attention and hidden-state features to score token importance". One
    reading of that: mean attention a token gets from itself and the later answer tokens (its raters) in the last layer,
    times how little its last hidden state resembles the others' (1 - mean cosine).
    """

    attention: ClassVar[str] = "answer"
    states: ClassVar[bool] = True

    def select(self, view: TokenView, keep: int) -> Tensor:
        """Most important."""
        raters = torch.arange(view.count, 0, -1, device=view.attention.device)
        received = view.attention.sum(0) / raters
        return top_k(received * (1 - cosine_similarity(view.states, view.states).mean(0)).clamp_min(0), keep)
