"""TransPrune: keep the tokens that attention and MLPs turn and stretch most, and that the text attends to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uniprune.pruning.fields import NonNegative, Share
from uniprune.pruning.functional import at_least_float32, top_k
from uniprune.pruning.looks import Look, Passage
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._cuts import Cuts
from ._transprune import RELEASES, SMALL, share


@register_method(
    "transprune",
    paper="arXiv 2507.20630",
    code="liaolea/TransPrune",
    licence="MIT",
    deviations=[
        "Paper: transition and attention have equal weights, as released; the paper's formula weighs them, and also "
        "ranks by transition alone, for which the release has no switch.",
        "Release: original positions are kept; the release renumbers at every cut, which is not offered (see "
        "`pyramiddrop`).",
        "Release: counts are rounded instead of floored. Transitions are shares of each prompt, not of a batch.",
        "Release: several images and grouped-query attention work.",
        "Release: it is for LLaVA's decoder; here norms after attention and MLP, which others have, belong to neither, "
        "and linear attention counts as attention.",
    ],
    releases=RELEASES,
)
@dataclass(frozen=True, kw_only=True)
class TransPrune(Cuts):
    """Ranks tokens by transitions inside layers and the text's attention (Li et al., CVPR 2026, arXiv 2507.20630).

    A transition is the ratio of lengths after and before an attention or MLP, times e ** (1 - cosine) as a share of the
    prompt. Before layers 7, 9 and 12 of 32, the transitions of layers 6 to K - 1 and the mean attention that the text
    after the image would give in layer K are added, each as a share of the image.

    The ratio is the average share from the first pruning layer on. With `budget="paper"` it is the share that the last
    cut leaves: as released 0.125, after 0.875 and 0.625, which is 41 % over all layers.

    Cost: transitions of all tokens in six layers, the text attention rows of three.

    Args:
        accumulated: layers whose transitions are added; by default all from the one before the first cut to the last.
    """

    layer: NonNegative = 7
    left: tuple[Share, ...] = (0.875, 0.625, 0.125)
    accumulated: tuple[NonNegative, ...] = ()
    upcoming_attention: ClassVar[bool] = True
    reference: ClassVar[tuple[int, ...]] = (7, 9, 12)

    def looks(self, layers: Sequence[int]) -> list[Look]:
        chosen = self.accumulated or range(layers[0] - 1, layers[-1])
        return [look for layer in chosen for look in (Look(layer, "attention"), Look(layer, "mlp"))]

    def look(self, passage: Passage) -> Tensor:
        before, after = at_least_float32(passage.entering), at_least_float32(passage.leaving)
        turned = (1 - torch.cosine_similarity(before, after, dim=-1)).exp().where(passage.real, 0)
        stretched: Tensor = after.norm(dim=-1) / before.norm(dim=-1).clamp(min=SMALL)
        return stretched * turned / turned.sum(-1, keepdim=True)

    def select(self, view: View, keep: int) -> Tensor:
        attention = view.upcoming(view.following).mean((0, 1))
        transition = sum(view.seen, torch.zeros_like(attention))
        return top_k(share(transition) + share(attention), keep)
