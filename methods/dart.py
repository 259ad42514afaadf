"""DART: keep what is least like a few pivot tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.fields import Count, NonNegative
from uniprune.pruning.functional import at_least_float32, cosine_similarity, rows_of, top_k, true_places
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
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
        return with_pivots(view.norm(view.tokens), visual, view.norm(view.text[text]), keep)

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor | None:
        every = [view.after for view in batch.views]
        if min(map(len, every)) < self.text_pivots:
            return None
        visual = largest_keys(batch.attention.keys("visual"), min(self.visual_pivots, keep))
        after = pad_sequence(every, batch_first=True, padding_value=-1)
        keys = batch.attention.keys(after.clamp(min=0).unbind())
        chosen = after.gather(-1, largest_keys(keys, self.text_pivots, absent=after < 0))
        text = torch.stack([own[places] for own, places in zip(batch.text, chosen, strict=True)])
        norm = batch.views[0].norm
        return with_pivots(norm(batch.tokens), visual, norm(text), keep)


def largest_keys(keys: Tensor, count: int, absent: Tensor | None = None) -> Tensor:
    """[..., count] indices of the keys [..., N, C] with the largest L1 norm, or all N in that order.

    Those `absent` [..., N] come last.
    """
    norms = at_least_float32(keys).abs().sum(-1)
    return top_k(norms if absent is None else norms.masked_fill(absent, -1), count)


def with_pivots(tokens: Tensor, visual: Tensor, text: Tensor, keep: int) -> Tensor:
    """[..., keep] indices: the pivots `visual` [..., V] of `tokens` [..., N, D], and the least like these and `text`."""
    pivots = torch.cat([rows_of(tokens, visual), text], dim=-2)
    return least_similar(tokens, pivots, visual, quotas(keep - visual.shape[-1], pivots.shape[-2]))


def quotas(tokens: int, pivots: int) -> list[int]:
    """Tokens each pivot may add: `tokens` in all, spread evenly, the first ones taking one more."""
    each, more = divmod(tokens, pivots)
    return [each + (pivot < more) for pivot in range(pivots)]


def least_similar(tokens: Tensor, pivots: Tensor, visual: Tensor, quotas: list[int]) -> Tensor:
    """Ascending indices of the visual pivots and, for each pivot in turn, of the tokens left that are least like it.

    `tokens` is [..., N, D]; `pivots` [..., P, D] act in their order, `visual` [..., V] indexes those that are visual
    tokens; `quotas` are the tokens that each of the P adds, fewer when none remain.
    """
    similarity, every = cosine_similarity(pivots, tokens), tokens.shape[-2]
    taken = torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=tokens.device).scatter_(-1, visual, True)
    free = every - visual.shape[-1]
    for row, quota in zip(similarity.unbind(-2), quotas, strict=True):
        least = row.masked_fill(taken, torch.inf).argsort(stable=True)[..., : min(quota, free)]
        taken.scatter_(-1, least, True)
        free -= least.shape[-1]
    return true_places(taken, every - free)
