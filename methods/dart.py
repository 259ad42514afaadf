"""DART: keep what is least like a few pivot tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.fields import Count, NonNegative
from uniprune.pruning.functional import rows_of
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._dart import largest_keys, padded, with_pivots


@register_method(
    "dart",
    paper="arXiv 2502.11494",
    code="ZichenWen1/DART",
    deviations=[
        "Release: the budget is met exactly; there, visual_pivots + pivots x floor(count / pivots) tokens stay.",
        "Release: pivots act in the order of their norm, visual ones first.",
        "UniPruneBench: hidden states are compared after the final norm; there, after the input norm of layer K.",
    ],
    releases={
        "test_releases_llm.test_dart_keeps_more_or_fewer_than_asked": "For 192, 128 and 64 tokens it keeps 196, 132 "
        "and 68, UniPruneBench's port 190, 130 and 70.",
        "test_releases_llm.test_pivots_of_dart_act_in_the_order_of_a_python_set": "Pivots act in the iteration order "
        "of a Python set, which changes with the length of the text before the image, and with it the choice.",
    },
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
        after, norm = padded(every, -1), batch.views[0].norm
        keys = batch.attention.keys(after.clamp(min=0).unbind())
        text = after.gather(-1, largest_keys(keys, self.text_pivots, absent=after < 0))
        return with_pivots(norm(batch.tokens), visual, norm(rows_of(padded(batch.text), text)), keep)
