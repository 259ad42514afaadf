"""ZSPAPrune: a core of tokens relevant to the prompt, completed by diverse ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.budget import keep_count
from uniprune.pruning.fields import Share
from uniprune.pruning.functional import at_least_float32, cosine_distance, relevance, top_k
from uniprune.pruning.greedy import farthest_points
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

Pooling = Literal["mean", "max", "none"]


@register_method(
    "zspaprune",
    paper="arXiv 2510.17197",
    deviations=[
        "Paper: `k` is fixed instead of tuned on each benchmark's test set (the paper's best values are 0.1 to 0.4).",
        "Paper: chosen diverse tokens count as chosen; its equation 8 alone says core tokens only.",
        "Paper, where it is silent: the prompt is the bare question's input embeddings, without system prompt and "
        "template; similarities are cosines; `k=0` starts as DivPrune does.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class ZSPAPrune(PreLLM):
    """Prompt-relevant core plus farthest points from it (ZSPAPrune, arXiv 2510.17197).

    The share `k` of the budget goes to the projected tokens most similar to the pooled prompt; the rest is filled by
    always adding the token whose most similar chosen token is least similar. No code was released.

    Cost: O(M D + N^2 D + keep N).

    Args:
        k: share of the budget for the relevant core; 1 is the paper's relevance-only baseline, 0 diversity only.
        pooling: "mean" or "max" of the prompt's embeddings, or "none": a token's best match among the prompt's.
    """

    k: Share = 0.2
    pooling: Pooling = "mean"
    needs_text: ClassVar[bool] = True
    takes_gaps: ClassVar[bool] = True
    scale_invariant: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        scores = relevance(view.tokens, pooled(view.prompt, self.pooling), torch.amax)
        return core_and_diverse(view.tokens, scores, keep_count(keep, self.k), keep)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor:
        scores = relevance(batch.tokens, [pooled(prompt, self.pooling) for prompt in batch.prompt], torch.amax)
        return core_and_diverse(batch.tokens, scores, keep_count(keep, self.k), keep)


def pooled(prompt: Tensor, pooling: Pooling) -> Tensor:
    """[1, D] mean or maximum of `prompt` [M, D], or the prompt itself."""
    prompt = at_least_float32(prompt)
    if pooling == "none":
        return prompt
    return prompt.mean(0, keepdim=True) if pooling == "mean" else prompt.amax(0, keepdim=True)


def core_and_diverse(tokens: Tensor, scores: Tensor, core: int, keep: int) -> Tensor:
    """[..., keep] the `core` best by `scores` [..., N], then the farthest from all chosen (for core 0 as DivPrune)."""
    return farthest_points(cosine_distance(tokens), keep, top_k(scores, core) if core else None)
