"""Rules that merge tokens into others. Shapes that begin with dots as in `uniprune.pruning.functional`."""

from __future__ import annotations

import torch
from torch import Tensor

from uniprune.pruning.functional import cosine_similarity, group_means, largest_in_rows, on_cpu, rows_of, weighted_sums


def add_neighbours(features: Tensor, anchors: Tensor, keys: Tensor, weights: Tensor, neighbours: int) -> Tensor:
    """k-nearest merging: each anchor plus the weighted sum of the tokens most similar to it.

    Args:
        features: [..., N, C] summed vectors.
        anchors: [..., A] tokens to merge into.
        keys: [..., N, d] vectors compared by cosine.
        weights: [..., N] of the added tokens.
        neighbours: how many of all other tokens, anchors included, are added to an anchor.

    Returns:
        [..., A, C], nothing renormalised. O(A N d + A neighbours C).
    """
    similarity = cosine_similarity(rows_of(keys, anchors), keys).scatter_(-1, anchors[..., None], -torch.inf)
    nearest = largest_in_rows(similarity, min(neighbours, features.shape[-2] - 1))
    return rows_of(features, anchors) + weighted_sums(features, nearest, weights)


def merge_with_background(features: Tensor, anchors: Tensor, keys: Tensor, weights: Tensor, neighbours: int) -> Tensor:
    """[..., A + 1, C]: `add_neighbours`, and one token more, the weighted sum of everything that is no anchor."""
    background = combined(weights.to(features).scatter(-1, anchors, 0), features)
    return torch.cat((add_neighbours(features, anchors, keys, weights, neighbours), background[..., None, :]), dim=-2)


def combined(weights: Tensor, rows: Tensor) -> Tensor:
    """[..., C] sums of weights[i] x rows[i], of `weights` [..., N] and `rows` [..., N, C]. O(N C)."""
    if weights.dim() == 1:
        return weights @ rows
    if not on_cpu(rows):
        return (weights[..., None, :] @ rows)[..., 0, :]
    return torch.stack([combined(*one) for one in zip(weights, rows, strict=True)])


def merge_into_nearest(features: Tensor, keys: Tensor, anchors: Tensor, others: Tensor) -> Tensor:
    """Each anchor plus the mean of the `others` that are most similar to it, or alone when there are none.

    Args:
        features: [..., N, C] averaged vectors.
        keys: [..., N, d] vectors compared by cosine.
        anchors: [..., A] tokens to merge into.
        others: [..., R] tokens that are each given to their nearest anchor.

    Returns:
        [..., A, C]. O(R A (d + C)).
    """
    count = anchors.shape[-1]
    if not count:
        return rows_of(features, anchors)
    owner = cosine_similarity(rows_of(keys, others), rows_of(keys, anchors)).argmax(-1)
    return rows_of(features, anchors) + group_means(features, owner, count, others)
