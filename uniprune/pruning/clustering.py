"""Density-peak clustering with nearest neighbours (DPC-kNN), for methods that merge what they drop."""

from __future__ import annotations

import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, gram, rows_of, top_k


def density_peaks(tokens: Tensor, clusters: int, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cluster tokens around centres: dense tokens that are far from any denser one (Rodriguez & Laio, Science 2014).

    Density is exp(-mean of the `clusters` smallest squared distances, the token's own 0 included); distances are
    L2 / sqrt(D). Mutual nearest neighbours have equal densities; the lower index counts as the denser one.

    Args:
        tokens: [..., N, D]; dimensions in front are of prompts.
        clusters: how many clusters, at most N.
        noise: [..., N] added to the densities instead, to reproduce code that breaks ties at random; ties that remain,
            as they do where the noise is rounded away, leave both tokens undominated.

    Returns:
        [..., clusters] indices of the centres, best first, and [..., N] the cluster of every token. O(N^2 D) time,
        O(N^2) memory.
    """
    x = at_least_float32(tokens)
    distance = _squared_distances(x - x.mean(-2, keepdim=True))
    # In float64 the sum of a few float32 is exact, so that equal distances make ties in any order of `topk`.
    spread = distance.topk(clusters, largest=False, sorted=False).values.mean(-1, dtype=torch.float64)
    density = (spread / -x.shape[-1]).exp()
    if noise is None:
        order = density.argsort(descending=True, stable=True)
        falling = torch.arange(order.shape[-1], 0, -1, device=order.device).expand_as(order)
        height = torch.empty_like(order).scatter_(-1, order, falling)
    else:
        height = density = density.to(x) + noise.to(x)
    no_denser = height[..., None, :] <= height[..., None]
    apart = distance.amax((-2, -1), keepdim=True).where(no_denser, distance).amin(-1)
    centres = top_k(density * apart.sqrt_(), clusters)  # the scale of the distances ranks nothing
    owner = rows_of(distance, centres).min(-2).indices
    own = torch.arange(clusters, device=owner.device).expand_as(centres)
    return centres, owner.scatter_(-1, centres, own)


def _squared_distances(x: Tensor) -> Tensor:
    """[..., N, N] squared L2 distances of `x` [..., N, D] from inner products; exactly symmetric.

    So mutual nearest neighbours tie. The nearer `x` is to 0, the fewer digits cancel: pass it centred.
    """
    products = gram(x)
    square = products.diagonal(dim1=-2, dim2=-1)
    return (square[..., None] + square[..., None, :]).sub_(products, alpha=2).clamp_(min=0)
