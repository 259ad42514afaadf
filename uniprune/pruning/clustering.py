"""Density-peak clustering with nearest neighbours (DPC-kNN), for methods that merge what they drop."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, gram, rows_of, top_k
from uniprune.utils.kernels import proven

SIZES = (1024, 4096)
"""GPU kernels are compiled for these many tokens."""


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
    if noise is not None:
        density = density.to(x) + noise.to(x)
    apart = separations(distance, density, ordered=noise is None)
    centres = top_k(density * apart.sqrt_(), clusters)  # the scale of the distances ranks nothing
    owner = rows_of(distance, centres).min(-2).indices
    own = torch.arange(clusters, device=owner.device).expand_as(centres)
    return centres, owner.scatter_(-1, centres, own)


def separations(distance: Tensor, density: Tensor, ordered: bool) -> Tensor:
    """[..., N] distance of every token to its nearest denser one, the largest distance of all where there is none.

    `distance` is [..., N, N], `density` [..., N]; of two equally dense tokens the first counts as the denser one if
    `ordered`, else neither.
    """
    if fused(distance):
        from uniprune.pruning import clustering_triton as kernels

        pairs = distance.reshape(-1, *distance.shape[-2:]).contiguous()
        found: Tensor = kernels.separations(pairs, density.reshape(len(pairs), -1).contiguous(), ordered)
        return found.view(density.shape)
    return _separations(distance, density, ordered)


def _separations(distance: Tensor, density: Tensor, ordered: bool) -> Tensor:
    """[..., N] of the same, by operations of torch."""
    height = density
    if ordered:
        order = density.argsort(descending=True, stable=True)
        falling = torch.arange(order.shape[-1], 0, -1, device=order.device).expand_as(order)
        height = torch.empty_like(order).scatter_(-1, order, falling)
    no_denser = height[..., None, :] <= height[..., None]
    return distance.amax((-2, -1), keepdim=True).where(no_denser, distance).amin(-1)


def fused(distance: Tensor) -> bool:
    """Check whether a GPU kernel finds separations by `distance` [..., N, N].

    It needs a CUDA device, Triton (part of torch's CUDA builds), and tokens that one block of threads can hold.
    """
    if not distance.is_cuda or distance.shape[-1] > max(SIZES) or find_spec("triton") is None:
        return False
    return _proven(distance.device, distance.dtype)


@cache
def _proven(device: torch.device, dtype: torch.dtype) -> bool:
    """Check whether the kernel finds what torch does; tried once, so that timed calls are not."""
    what = f"clusters are formed on {device}"
    return proven(what, "operation by operation", lambda: disagreement(device, dtype))


def disagreement(device: torch.device, dtype: torch.dtype) -> str:
    """Compare the kernel with torch in every size, with ties; return the first difference, "" for none.

    Raises:
        Exception: the kernel cannot be compiled or run here.
    """
    from uniprune.pruning import clustering_triton as kernels

    draw = torch.Generator().manual_seed(0)
    for size in SIZES:
        tokens = size // 4 + 1
        distance = torch.rand(2, tokens, tokens, generator=draw).to(device, dtype)
        for wide in (torch.float64, dtype):
            density = torch.rand(2, tokens, generator=draw).mul(tokens).round().to(device, wide)
            for ordered in (True, False):
                want = _separations(distance, density, ordered)
                if not torch.equal(kernels.separations(distance, density, ordered), want):
                    return f"the kernel of {size} tokens finds other distances"
    return ""


def _squared_distances(x: Tensor) -> Tensor:
    """[..., N, N] squared L2 distances of `x` [..., N, D] from inner products; exactly symmetric.

    So mutual nearest neighbours tie. The nearer `x` is to 0, the fewer digits cancel: pass it centred.
    """
    products = gram(x)
    square = products.diagonal(dim1=-2, dim2=-1)
    return (square[..., None] + square[..., None, :]).sub_(products, alpha=2).clamp_(min=0)
