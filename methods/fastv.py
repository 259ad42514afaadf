"""FastV: keep the tokens the last prompt token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method("fastv", paper="arXiv 2403.06764")
@dataclass(frozen=True, kw_only=True)
class FastV(IntraLLM):
    """Keeps the tokens the last prompt token attends to most (Chen et al., ECCV 2024, arXiv 2403.06764).

    Attention of layer K - 1, mean over heads, pruned before layer K = 2.

    Differs from the paper in: its text averages attention over all tokens, its released code, followed here, uses the
    last row only. Differs from the release in: the ranking is made once in prefill, as in the authors' port to
    transformers (their first code repeats it for every generated token, their cached one misplaces positions); only
    that row is computed, so any attention kernel works and no key is cached twice. UniPruneBench's port hands tokens
    over by falling attention, which scrambles the image (`order="release"`), and renumbers positions without telling
    the decode steps, which is not offered.
    Cost: one attention row.
    """

    llm_attention: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        """Top tokens by last-row attention."""
        return top_k(view.attention("last").mean(0)[0], keep)
