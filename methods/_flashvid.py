"""The tokens that FlashVID picks in frames, and the clusters of what merging leaves."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from uniprune.pruning.functional import cosine_similarity, group_means
from uniprune.pruning.greedy import farthest_points

from ._segments import clusters

RELEASES = {
    "test_methods_merging.test_a_chain_of_merged_tokens_is_its_mean": "The mean of a chain of three merged tokens "
    "is their sum divided by two (`counts=release`), as links are counted and not tokens.",
}
NEIGHBOURS = 7
"""Most distances that make the density of a token."""


def picked(x: Tensor, attention: Tensor, counts: list[int]) -> Tensor:
    """[T, N] whether a token is picked: far from the others of its frame, by cosine times its attention.

    Args:
        x: [T, N, D] tokens.
        attention: [T, N] attention they receive.
        counts: T numbers of tokens to pick.
    """
    order = farthest_points((1 - cosine_similarity(x)) * attention[:, None], max(counts))
    taken = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device).scatter_(1, order, taken.to(x.device))


def clustered(left: Tensor, means: Tensor, budget: int, draws: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Reduce the tokens that are left of a segment to `budget`, frame by frame, by clusters.

    Args:
        left: [L, N] which tokens are left, at least `budget`.
        means: [L, N, D] what they are.
        budget: how many tokens to return; more as released.
        draws: see `clusters`; given as released, where every frame's share is rounded up.

    Returns:
        [k] places of the clusters' centres among the L N tokens, and their means [k, D].
    """
    numbers, size = left.sum(1).tolist(), left.shape[1]
    total = max(1, sum(numbers))
    ends = [budget * done // total for done in accumulate(numbers, initial=0)]
    counts = [after - before for before, after in pairwise(ends)]
    if draws is not None:
        counts = [min(number, math.ceil(number * (budget / total))) for number in numbers]
    places, tokens = [], []
    for frame, count in enumerate(counts):
        own = left[frame].nonzero()[:, 0]
        features = means[frame, own]
        if count and total > budget:
            centres, owner = clusters(features, count, min(count, NEIGHBOURS), draws)
            own, features = own[centres], group_means(features, owner, count)
        places.append((own + frame * size)[:count])
        tokens.append(features[:count])
    return torch.cat(places), torch.cat(tokens)
