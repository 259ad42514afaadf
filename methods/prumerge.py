"""LLaVA-PruMerge: keep attention outliers and merge the others into them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniprune.pruning.functional import count_outliers, top_k
from uniprune.registry import register_method

from ._prumerge import Merging


@register_method("prumerge", paper="arXiv 2403.15388")
@dataclass(frozen=True, kw_only=True)
class PruMerge(Merging):
    """Attention outliers, enriched by their nearest neighbours (Shang et al., ICCV 2025, arXiv 2403.15388).

    The tokens with the most CLS attention become anchors; each adds the attention-weighted sum of the tokens whose keys
    are most similar, and one further token sums up everything that is no anchor.

    Differs from the paper in: the number of tokens is the budget, further token included, unless `adaptive`; merged
    tokens are sums, as in the release, not weighted averages.
    Differs from the release in: tokens stay in raster order at the positions of their anchors (`order="release"` puts
    them by falling attention; together with `positions="compact"` that is the released sequence); fewer than 33 tokens
    do not crash; a ratio means round(N ratio) tokens in all, not floor(N ratio) + 1. With `adaptive` the number of
    anchors is the release's: as many as outliers of the interquartile range, about 5.5 % on LLaVA-1.5.
    Families: CLS attention in LLaVA and InternVL, received attention in Qwen2.5-VL, each from the last block, times the
    patches per token; keys averaged over a token's patches; merging happens before the projector. Grids and system
    prompts play no role.
    Cost: O(N C) for attention, O(K N C) for merging.
    """

    def anchors(self, attention: Tensor, count: int) -> Tensor:
        """The most attended tokens, best first."""
        return top_k(attention, max(1, count_outliers(attention)) if self.adaptive else count)
