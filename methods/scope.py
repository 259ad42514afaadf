"""SCOPE: always add the token that covers most of what is not covered yet, weighted by its saliency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from uniprune.pruning.base import PreLLM
from uniprune.pruning.coverage import most_covering
from uniprune.pruning.fields import Weight
from uniprune.pruning.functional import cosine_similarity
from uniprune.pruning.view import Space, View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

Combine = Literal["product", "sum"]


@register_method(
    "scope",
    paper="arXiv 2510.24214",
    code="kinredon/SCOPE",
    licence="none of its own; headers of files Apache-2.0",
    deviations=[
        "Paper: without a CLS token nothing is released; there saliency is the mean attention a token receives, and "
        "features of merged patches are compared side by side. This rule is ours. `combine=sum` is refused there, as "
        "it depends on the number of heads.",
        "Paper, where only code is known: coverage starts at 0, as released.",
        "Release: similarities are float32 instead of the model's precision, and a token of zeros is similar to none.",
        "Release: one budget per image; the release divides one by the number of tiles in the tower's batch, whose "
        "images share it, and rounds down (`scope=tile`).",
        "Release: its README calls a function that the package lacks, and its LLaVA-NeXT script names a baseline that "
        "is not known to its model builder, so nothing is pruned; the rule is that of the tower's code.",
        "Release: original positions are kept (`positions=compact` renumbers as released).",
    ],
    releases={
        "test_releases_vit.test_scope_gives_up_on_a_token_of_zeros": "One token of zeros makes all scores NaN, and "
        "the first tokens are picked.",
        "test_releases_vit.test_the_first_token_of_scope_is_not_the_most_salient": "Coverage starts at 0: a negative "
        "similarity covers nothing, and the first pick is not the most salient token.",
    },
)
@dataclass(frozen=True, kw_only=True)
class SCOPE(PreLLM):
    """Saliency times gain in coverage, picked greedily (SCOPE, NeurIPS 2025, arXiv 2510.24214).

    A token covers others as far as its features are similar to theirs. Added is always the token whose gain in the
    coverage of all tokens, multiplied by the attention of the CLS token to it, is largest.

    Cost: O(N^2 C), then O(N^2) per kept token.

    Args:
        alpha: power of the attention; 0 is coverage only.
        combine: "product" of gain and attention, or their "sum", the release's other mode, with attention summed over
            heads.
        space: features that are compared: "vision" before the projector, "llm" after it.
        vision_layer: block whose attention is used; None for the one that makes the features.
    """

    alpha: Weight = 1.0
    combine: Combine = "product"
    space: Space = "vision"
    vision_layer: int | None = None
    scale_invariant: ClassVar[bool] = True

    def select(self, view: View | ViewBatch, keep: int) -> Tensor:
        similarity = cosine_similarity(view.features(self.space))
        if self.combine == "product":
            return most_covering(similarity, keep, factor=view.vision.importance(self.vision_layer) ** self.alpha)
        return most_covering(similarity, keep, bonus=view.vision.cls(self.vision_layer).sum(-2) ** self.alpha)

    select_batch = select
