"""DART: keep what is least like a few pivot tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.base import Count, IntraLLM, NonNegative
from uniprune.pruning.functional import at_least_float32, cosine_similarity, top_k
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method("dart", paper="arXiv 2502.11494")
@dataclass(frozen=True, kw_only=True)
class DART(IntraLLM):
    """Keeps pivot tokens and, for each, the tokens least similar to it (Wen et al., EMNLP 2025, arXiv 2502.11494).

    Pivots are the visual and the following text tokens with the largest L1 norm of their key in layer K - 1; similarity
    is the cosine of hidden states after the decoder's final norm. Duplicates of pivots go first.

    Args:
        visual_pivots, text_pivots: how many; UniPruneBench takes 10 and 5.
        released_count: keep visual_pivots + pivots x floor(count / pivots), up to `visual_pivots` too many, as the
            released code does (196, 132, 68 for 192, 128, 64); by default the budget is met exactly.

    Differs from the paper in: nothing. Differs from the release in: pivots act in the order of their norm, visual ones
    first, where it follows the iteration order of a Python set (0-10 % of the kept tokens depend on that; not offered,
    as it changes with the place of the image in the prompt). UniPruneBench's port compares hidden states after the
    input norm of layer K. Cost: one cosine row per pivot, no attention row.
    """

    visual_pivots: Count = 4
    text_pivots: NonNegative = 4
    released_count: bool = False
    llm_attention: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        """Unless the count is the release's."""
        return not self.released_count

    def select(self, view: View, keep: int) -> Tensor:
        """Pivots of this view, then what is least like them."""
        visual = largest_keys(view.attention.keys("visual"), min(self.visual_pivots, keep))
        text = view.after[largest_keys(view.attention.keys(view.after), self.text_pivots)]
        tokens = view.norm(view.tokens)
        pivots = torch.cat([tokens[visual], view.norm(view.text[text])])
        return least_similar(tokens, pivots, visual, quotas(keep, len(visual), len(pivots), self.released_count))


def largest_keys(keys: Tensor, count: int) -> Tensor:
    """[count] indices of the keys [N, C] with the largest L1 norm, or all N in that order."""
    return top_k(at_least_float32(keys).abs().sum(-1), count)


def quotas(keep: int, visual: int, pivots: int, released: bool) -> list[int]:
    """Tokens each pivot may add: `keep - visual` in all, spread evenly, the first ones taking one more."""
    if released:
        return [keep // pivots] * pivots
    each, more = divmod(keep - visual, pivots)
    return [each + (pivot < more) for pivot in range(pivots)]


def least_similar(tokens: Tensor, pivots: Tensor, visual: Tensor, quotas: list[int]) -> Tensor:
    """The visual pivots and, for each pivot in turn, the remaining tokens with the lowest cosine similarity to it.

    Args:
        tokens: [N, D] visual tokens.
        pivots: [P, D] pivots of either kind, in the order in which they act.
        visual: [V] indices of the pivots that are visual tokens.
        quotas: tokens each pivot adds; fewer when none remain.
    """
    similarity = cosine_similarity(pivots, tokens)
    taken = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    taken[visual] = True
    free = len(tokens) - len(visual)
    for row, quota in zip(similarity, quotas, strict=True):
        quota = min(quota, free)
        taken[row.masked_fill(taken, torch.inf).argsort(stable=True)[:quota]] = True
        free -= quota
    return taken.nonzero()[:, 0]
