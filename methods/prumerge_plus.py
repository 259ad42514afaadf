"""LLaVA-PruMerge+: attention outliers and evenly spaced tokens, with the others merged into them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.pruning.functional import complement, count_outliers, top_k
from uniprune.registry import register_method

from ._prumerge import DEVIATIONS, Merging


@register_method(
    "prumerge+",
    paper="arXiv 2403.15388",
    code="42Shawn/LLaVA-PruMerge",
    deviations=[
        "Paper: the number of tokens is the budget, further token included, unless `adaptive`: outliers come first, "
        "the rest of the budget is spaced evenly over the other tokens, along the raster.",
        *DEVIATIONS,
        "Release: its fixed-ratio variant, made for training, is not offered: it picks tokens twice.",
    ],
    releases={
        "test_releases_vit.test_the_count_of_prumerge_plus_jumps": "How many tokens stay jumps with the number of "
        "outliers (`adaptive=true`): 31 % of 576 with 48 of them, 39 % with 49, all with 97, since distances between "
        "anchors are rounded down twice.",
        "test_vit_rules.test_released_anchors_stop_before_the_last_token": "The last token of an image is no anchor "
        "unless it is an outlier, as 575 is written into the release.",
    },
)
@dataclass(frozen=True, kw_only=True)
class PruMergePlus(Merging):
    """PruMerge with evenly spaced anchors beside the outliers (Shang et al., ICCV 2025, arXiv 2403.15388).

    Anchors are the outliers of CLS attention and, so that no region is lost, tokens at even distances; each adds the
    attention-weighted sum of the tokens whose keys are most similar, and one further token sums up all others. With
    `adaptive` the count is the release's, about 25 % on LLaVA-1.5, spaced as there, up to the last token but one.

    Cost: O(N C) for attention, O(K N C) for merging.
    """

    def anchors(self, attention: Tensor, count: int) -> Tensor:
        """Outliers, best first, then spaced tokens."""
        outliers = top_k(attention, max(1, count_outliers(attention)))
        return released(outliers, len(attention)) if self.adaptive else spaced(outliers[:count], len(attention), count)


def spaced(outliers: Tensor, tokens: int, count: int) -> Tensor:
    """[count] the outliers, then tokens evenly spaced among the others."""
    others, more = complement(tokens, outliers), count - len(outliers)
    places = (2 * torch.arange(more, device=others.device) + 1) * len(others) // (2 * max(1, more))
    return torch.cat((outliers, others[places]))


def released(outliers: Tensor, tokens: int) -> Tensor:
    """[A] the outliers, then every s-th token that is none; s is a third of tokens per outlier."""
    regular = torch.arange(0, tokens - 1, max(1, int(int(1 / (len(outliers) / tokens)) / 3)), device=outliers.device)
    return torch.cat((outliers, regular[~torch.isin(regular, outliers)]))
