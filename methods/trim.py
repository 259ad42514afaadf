"""TRIM: the tokens that a text tower relates to the question, and one token for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from uniprune.pruning.base import Selection
from uniprune.pruning.functional import top_k
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._leading import with_mean
from ._question import WithTextTower, outliers, relevance


@register_method(
    "trim",
    paper="arXiv 2409.10994",
    code="FreedomIntelligence/TRIM",
    licence="Apache-2.0",
    deviations=[
        "Paper: the number of tokens is the budget, the mean token included, unless `adaptive`.",
        "Paper: similarities are products, and the smallest stay, as released.",
        "Paper: no checkpoint carries the vision tower's text tower; `text_checkpoint` names the CLIP model that has "
        "it, and must have the same vision tower. Read is the question, not the whole prompt, up to 77 tokens.",
        "Paper: `text=llm` compares projected tokens with the mean embedding of the question, and the largest products "
        "stay; this is ours.",
        "Release: the share of `adaptive` is that of an image; there it is one for all tiles and images of a batch. No "
        "outlier, an error there, means one token.",
        "Release: the mean token takes the last free place; there it follows the others (`order=release`). Original "
        "positions are kept (`positions=compact` renumbers as released). It is not rounded to float16.",
        "Release: one budget per image, not per tile (`scope=tile`).",
    ],
    releases={
        "test_releases_2026.test_trim_keeps_what_is_least_like_the_question": "Similarities to the question are "
        "products, not cosines, and the smallest stay: CLIP relates patches to text the wrong way round.",
    },
)
@dataclass(frozen=True, kw_only=True)
class TRIM(WithTextTower):
    """Token reduction by CLIP's metric (Song et al., COLING 2025, arXiv 2409.10994).

    Tokens are ranked by their similarity to the question in the space of vision and text tower; one further token is
    the mean of those that go. With `adaptive` there are as many as outliers of the interquartile range, as released.

    Cost: O(N E).

    Args:
        adaptive: let the similarities decide how many tokens stay; the keep ratio is then ignored, `exact` is False.
    """

    adaptive: bool = False
    takes_gaps: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        """False if the similarities decide."""
        return not self.adaptive

    def select(self, view: View, keep: int) -> Selection:
        space, scores = relevance(view, self.text)
        count = outliers(scores) if self.adaptive else keep - 1
        return with_mean(view, top_k(scores, count), space)
