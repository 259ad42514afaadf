"""DART: keep what is least like a few pivot tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.fields import Count, NonNegative
from uniprune.pruning.functional import at_least_float32, cosine_similarity, top_k
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method(
    "dart",
    paper="arXiv 2502.11494",
    code="ZichenWen1/DART",
    deviations=[
        "Release: the budget is met exactly; there, visual_pivots + pivots x floor(count / pivots) tokens stay (196, "
        "132, 68 for 192, 128, 64).",
        "Release: pivots act in the order of their norm, visual ones first; there, in the iteration order of a Python "
        "set, which changes with the place of the image in the prompt (0-10 % of the kept tokens depend on it).",
        "UniPruneBench: hidden states are compared after the final norm; there, after the input norm of layer K.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class DART(IntraLLM):
    """Keeps pivot tokens and, for each, the tokens least similar to it (Wen et al., EMNLP 2025, arXiv 2502.11494).

    Pivots are the visual and the following text tokens with the largest L1 norm of their key in layer K - 1; similarity
    is the cosine of hidden states after the decoder's final norm. Duplicates of pivots go first.

    Cost: one cosine row per pivot, no attention row.

    Args:
        visual_pivots: how many visual pivots; UniPruneBench takes 10.
        text_pivots: how many text pivots; UniPruneBench takes 5.
    """

    visual_pivots: Count = 4
    text_pivots: NonNegative = 4
    llm_attention: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        visual = largest_keys(view.attention.keys("visual"), min(self.visual_pivots, keep))
        text = view.after[largest_keys(view.attention.keys(view.after), self.text_pivots)]
        tokens = view.norm(view.tokens)
        pivots = torch.cat([tokens[visual], view.norm(view.text[text])])
        return least_similar(tokens, pivots, visual, quotas(keep - len(visual), len(pivots)))


def largest_keys(keys: Tensor, count: int) -> Tensor:
    """[count] indices of the keys [N, C] with the largest L1 norm, or all N in that order."""
    return top_k(at_least_float32(keys).abs().sum(-1), count)


def quotas(tokens: int, pivots: int) -> list[int]:
    """Tokens each pivot may add: `tokens` in all, spread evenly, the first ones taking one more."""
    each, more = divmod(tokens, pivots)
    return [each + (pivot < more) for pivot in range(pivots)]


def least_similar(tokens: Tensor, pivots: Tensor, visual: Tensor, quotas: list[int]) -> Tensor:
    """Ascending indices of the visual pivots and, for each pivot in turn, of the tokens left that are least like it.

    `tokens` is [N, D]; `pivots` [P, D] act in their order, `visual` [V] indexes those that are visual tokens; `quotas`
    are the tokens that each of the P adds, fewer when none remain.
    """
    similarity = cosine_similarity(pivots, tokens)
    taken = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    taken[visual] = True
    free = len(tokens) - len(visual)
    for row, quota in zip(similarity, quotas, strict=True):
        taken[row.masked_fill(taken, torch.inf).argsort(stable=True)[: min(quota, free)]] = True
        free -= min(quota, free)
    return taken.nonzero()[:, 0]
