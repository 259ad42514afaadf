"""VisionTrim's score of tokens, and tokens of the question that others are merged into."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, complement, cosine_similarity, group_means, top_k
from uniprune.pruning.view import VisionScores

ROUNDS = 3
"""As released."""


def dominance(vision: VisionScores, layer: int | None) -> Tensor:
    """[N] attention of other patches, plus that of the CLS token where there is one, each of length 1."""
    received = unit(vision.from_others(layer))
    return received + unit(vision.importance(layer)) if vision.has_cls else received


def unit(scores: Tensor) -> Tensor:
    """`scores` [N] of length 1; zeros stay."""
    return torch.nn.functional.normalize(at_least_float32(scores), dim=0)


def complemented(
    features: Tensor, taken: Tensor, count: int, words: Tensor, project: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return `count` anchors among the tokens that are not `taken`, and what they become [count, C].

    They have the largest mean cosine, once `project`ed, with `words` [M, E]. Every other token of the rest joins the
    anchor whose cosines with the words have the largest product with its own, and anchors add the mean of their
    members; again and again, from what they have become.

    Args:
        features: [N, C].
        taken: at most N - `count`.
        count: of anchors.
        words: the question's tokens.
        project: makes of features what is compared with words.
    """
    features, rest = at_least_float32(features), complement(len(features), taken)
    alike = cosine_similarity(project(features), words)
    anchors = rest[top_k(alike[rest].mean(-1), count).sort().values]
    others = rest[complement(len(rest), torch.searchsorted(rest, anchors))]
    merged = features[anchors]
    for _ in range(ROUNDS if count and len(others) else 0):
        owner = (alike[others] @ cosine_similarity(project(merged), words).mT).argmax(-1)
        merged = merged + group_means(features, owner, count, others)
    return anchors, merged
