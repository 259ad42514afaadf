"""LLaVA-PruMerge: keep attention outliers and merge the others into them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniprune.pruning.functional import count_outliers, top_k
from uniprune.registry import register_method

from ._prumerge import DEVIATIONS, Merging


@register_method(
    "prumerge",
    paper="arXiv 2403.15388",
    code="42Shawn/LLaVA-PruMerge",
    deviations=["Paper: the number of tokens is the budget, further token included, unless `adaptive`.", *DEVIATIONS],
    releases={
        "test_releases_vit.test_prumerge_adds_up_instead_of_averaging": "Merged tokens are sums, weighted by "
        "attention that adds up to less than one; the paper's averages are commented out.",
        "test_releases_vit.test_prumerge_takes_all_heads_for_one": "All heads of the attention are taken for one as "
        "wide as the layer (`heads=mean` has the real ones).",
    },
)
@dataclass(frozen=True, kw_only=True)
class PruMerge(Merging):
    """Attention outliers, enriched by their nearest neighbours (Shang et al., ICCV 2025, arXiv 2403.15388).

    The tokens with the most CLS attention become anchors; each adds the attention-weighted sum of the tokens whose keys
    are most similar, and one further token sums up everything that is no anchor. With `adaptive` there are as many
    anchors as outliers of the interquartile range, as released, about 5.5 % on LLaVA-1.5.

    Cost: O(N C) for attention, O(K N C) for merging.
    """

    select_batch = Merging.select

    def anchors(self, attention: Tensor, count: int) -> Tensor:
        """The most attended tokens, best first."""
        return top_k(attention, max(1, count_outliers(attention)) if self.adaptive else count)
