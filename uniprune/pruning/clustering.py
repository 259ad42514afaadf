"""Density-peak clustering with nearest neighbours (DPC-kNN), for methods that merge what they drop."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, gram, products, rows_of, top_k
from uniprune.utils.kernels import proven

SIZES = (1024, 4096)
"""GPU kernels are compiled for these many tokens."""


def density_peaks(
    tokens: Tensor, clusters: int, noise: Tensor | None = None, neighbours: int | None = None
) -> tuple[Tensor, Tensor]:
    """Cluster tokens around centres: dense tokens that are far from any denser one (Rodriguez & Laio, Science 2014).

    Density is exp(-mean of the `neighbours` smallest squared distances, the token's own 0 included); distances are
    L2 / sqrt(D). Mutual nearest neighbours have equal densities; the lower index counts as the denser one.

    Args:
        tokens: [..., N, D]; dimensions in front are of prompts.
        clusters: how many clusters, at most N.
        noise: [..., N] added to the densities instead, to reproduce code that breaks ties at random; ties that remain,
            as they do where the noise is rounded away, leave both tokens undominated.
        neighbours: how many distances make a density, at most N; None for as many as clusters.

    Returns:
        [..., clusters] indices of the centres, best first, and [..., N] the cluster of every token. O(N^2 D) time,
        O(N^2) memory.
    """
    x = at_least_float32(tokens)
    x = x - x.mean(-2, keepdim=True)  # the nearer to 0, the fewer digits cancel
    if noise is None and neighbours is None and fused(x):
        from uniprune.pruning import clustering_triton as kernels

        pairs = products(x, x).reshape(-1, x.shape[-2], x.shape[-2]).contiguous()
        centres, owner = kernels.density_peaks(pairs, x.shape[-1], clusters)
        return centres.view(*x.shape[:-2], clusters), owner.view(x.shape[:-1])
    return _density_peaks(x, clusters, noise, neighbours)


def _density_peaks(
    x: Tensor, clusters: int, noise: Tensor | None = None, neighbours: int | None = None
) -> tuple[Tensor, Tensor]:
    """[..., clusters] and [..., N] of the same for centred tokens, by operations of torch."""
    distance = _squared_distances(x)
    # In float64 the sum of a few float32 is exact, so that equal distances make ties in any order of `topk`.
    nearest = distance.topk(min(neighbours or clusters, x.shape[-2]), largest=False, sorted=False).values
    spread = nearest.mean(-1, dtype=torch.float64)
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


def fused(x: Tensor) -> bool:
    """Check whether GPU kernels cluster tokens like `x` [..., N, D].

    They need a CUDA device, Triton (part of torch's CUDA builds), and tokens that one block of threads can hold.
    """
    if not x.is_cuda or x.shape[-2] > max(SIZES) or find_spec("triton") is None:
        return False
    return _proven(x.device, x.dtype)


@cache
def _proven(device: torch.device, dtype: torch.dtype) -> bool:
    """Check whether the kernels find the clusters of torch; tried once, so that timed calls are not."""
    what = f"clusters are formed on {device}"
    return proven(what, "operation by operation", lambda: disagreement(device, dtype))


def disagreement(device: torch.device, dtype: torch.dtype) -> str:
    """Compare the kernels with torch in every size, with ties; return the first difference, "" for none.

    Raises:
        Exception: a kernel cannot be compiled or run here.
    """
    from uniprune.pruning import clustering_triton as kernels

    draw = torch.Generator().manual_seed(0)
    for size, smaller in zip(SIZES, (0, *SIZES), strict=False):
        tokens = smaller + min(60, size - smaller)
        # Whole numbers, whose products are exact in any order of additions.
        x = torch.randn(2, tokens, 8, generator=draw).mul(3).round().to(device, dtype)
        pairs = products(x, x).contiguous()
        for clusters in (1, 7):
            want = _density_peaks(x, clusters, None)
            if not all(map(torch.equal, kernels.density_peaks(pairs, 8, clusters), want)):
                return f"the kernels of {size} tokens form other clusters"
    return ""


def _squared_distances(x: Tensor) -> Tensor:
    """[..., N, N] squared L2 distances of `x` [..., N, D] from inner products; exactly symmetric.

    So mutual nearest neighbours tie. The nearer `x` is to 0, the fewer digits cancel: pass it centred.
    """
    pairs = gram(x)
    square = pairs.diagonal(dim1=-2, dim2=-1)
    return (square[..., None] + square[..., None, :]).sub_(pairs, alpha=2).clamp_(min=0)
