"""Density-peak clustering with nearest neighbours (DPC-kNN), for methods that merge what they drop."""

from __future__ import annotations

import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, gram, top_k


def density_peaks(tokens: Tensor, clusters: int, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cluster tokens around centres: dense tokens that are far from any denser one (Rodriguez & Laio, Science 2014).

    Density is exp(-mean of the `clusters` smallest squared distances, the token's own 0 included); distances are
    L2 / sqrt(D). Mutual nearest neighbours have equal densities; the lower index counts as the denser one.

    Args:
        tokens: [N, D].
        clusters: how many clusters, at most N.
        noise: [N] added to the densities instead, to reproduce code that breaks ties at random; ties that remain, as
            they do where the noise is rounded away, leave both tokens undominated.

    Returns:
        [clusters] indices of the centres, best first, and [N] the cluster of every token. O(N^2 D) time, O(N^2) memory.
    """
    x = at_least_float32(tokens)
    distance = _squared_distances(x - x.mean(0))
    # In float64 the sum of a few float32 is exact, so that equal distances make ties in any order of `topk`.
    spread = distance.topk(clusters, largest=False, sorted=False).values.mean(1, dtype=torch.float64)
    density = (spread / -x.shape[1]).exp()
    if noise is None:
        height = -density.argsort(descending=True, stable=True).argsort()
    else:
        height = density = density.to(x) + noise.to(x)
    no_denser = height[None] <= height[:, None]
    separation = distance.masked_fill(no_denser, distance.max()).amin(1).sqrt_()  # its scale ranks nothing
    centres = top_k(density * separation, clusters)
    owner = distance[centres].min(0).indices
    owner[centres] = torch.arange(clusters, device=owner.device)
    return centres, owner


def _squared_distances(x: Tensor) -> Tensor:
    """[N, N] squared L2 distances of `x` [N, D] from inner products; exactly symmetric: mutual nearest neighbours tie.

    The nearer `x` is to 0, the fewer digits cancel: pass it centred.
    """
    products = gram(x)
    square = products.diagonal()
    return (square[:, None] + square).sub_(products, alpha=2).clamp_(min=0)
