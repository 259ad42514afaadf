"""Density-peak clustering as four GPU kernels after the product of all pairs, written in Triton.

They make the numbers of `uniprune.pruning.clustering`, but for the last bit of the exponential function.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from uniprune.pruning.clustering import SIZES
from uniprune.pruning.rules_triton import ranked

TOKENS = 128
"""Tokens whose clusters one program finds."""


def density_peaks(products: Tensor, width: int, clusters: int) -> tuple[Tensor, Tensor]:
    """Return [P, clusters] centres and [P, N] the cluster of every token; see `uniprune.pruning.clustering`.

    Args:
        products: [P, N, N] contiguous inner products of centred tokens.
        width: D, numbers of a token.
        clusters: how many clusters, at most N.
    """
    prompts, tokens = products.shape[:2]
    size = next(size for size in SIZES if size >= tokens)
    new = products.new_empty
    distance, most, density = (
        torch.empty_like(products),
        new(prompts, tokens),
        new(prompts, tokens, dtype=torch.float64),
    )
    score, owner = torch.empty_like(density), new(prompts, tokens, dtype=torch.int64)
    with torch.cuda.device_of(products):  # Triton launches where torch's current device is
        one, wide = (tokens, prompts), {"SIZE": size, "num_warps": 8}
        _densities[one](products, distance, most, density, tokens, width, clusters, **wide)
        _scores[one](distance, most, density, score, tokens, **wide)
        centres = ranked(score, clusters)
        _owners[(triton.cdiv(tokens, TOKENS), prompts)](distance, centres, owner, tokens, clusters, TOKENS=TOKENS)
    return centres, owner


# Numbers of tokens change from prompt to prompt: a kernel must not be compiled for each.
# Triton has no types: its decorator and its language count as untyped.
@triton.jit(do_not_specialize=["tokens", "width", "clusters"])  # type: ignore[untyped-decorator]
def _densities(  # type: ignore[no-untyped-def]
    products, distance, most, density, tokens, width, clusters, SIZE: tl.constexpr
):
    """Store squared distances of one token to all, the largest of them, and the token's density."""
    token, prompt = tl.program_id(0), tl.program_id(1).to(tl.int64)
    products += prompt * tokens * tokens
    at = tl.arange(0, SIZE)
    inside = at < tokens
    across = tl.load(products + token * tokens + at, mask=inside, other=0.0)
    down = tl.load(products + at * tokens + token, mask=inside, other=0.0)
    square = tl.load(products + at * (tokens + 1), mask=inside, other=0.0)
    own = tl.load(products + token * (tokens + 1))
    far = tl.maximum(own + square - 2 * tl.maximum(across, down), 0.0)  # exactly symmetric
    tl.store(distance + (prompt * tokens + token) * tokens + at, far, mask=inside)
    tl.store(most + prompt * tokens + token, tl.max(far, 0))
    nearest = tl.sort(tl.where(inside, far, float("inf")))
    spread = tl.sum(tl.where(at < clusters, nearest.to(tl.float64), 0.0), 0) / clusters
    tl.store(density + prompt * tokens + token, tl.exp(-(spread / width)))


@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _scores(distance, most, density, score, tokens, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store a token's density times its distance to the nearest denser one; of equal ones the first is denser."""
    token, prompt = tl.program_id(0), tl.program_id(1).to(tl.int64)
    first = prompt * tokens
    at = tl.arange(0, SIZE)
    inside = at < tokens
    own = tl.load(density + first + token)
    other = tl.load(density + first + at, mask=inside, other=0.0)
    denser = ((other > own) | ((other == own) & (at < token))) & inside
    far = tl.max(tl.load(most + first + at, mask=inside, other=0.0), 0)
    row = tl.load(distance + (first + token) * tokens + at, mask=denser, other=float("inf"))
    found = tl.max(denser.to(tl.int32), 0) > 0
    apart = tl.where(found, tl.min(row, 0), far)
    exact: tl.constexpr = distance.dtype.element_ty == tl.float64  # there, the usual root is rounded correctly
    root = tl.sqrt(apart) if exact else tl.sqrt_rn(apart)
    tl.store(score + first + token, own * root)


@triton.jit(do_not_specialize=["tokens", "clusters"])  # type: ignore[untyped-decorator]
def _owners(distance, centres, owner, tokens, clusters, TOKENS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store the cluster of some tokens: the first of the nearest centres, for a centre its own."""
    prompt = tl.program_id(1).to(tl.int64)
    distance += prompt * tokens * tokens
    at = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    inside = at < tokens
    least = tl.full([TOKENS], float("inf"), distance.dtype.element_ty)
    nearest = tl.zeros([TOKENS], tl.int32)
    own = tl.full([TOKENS], -1, tl.int32)
    for cluster in range(clusters):
        centre = tl.maximum(tl.load(centres + prompt * clusters + cluster), 0)  # in bounds without a ranking, too
        far = tl.load(distance + centre * tokens + at, mask=inside, other=0.0)
        nearest = tl.where(far < least, cluster, nearest)
        least = tl.minimum(far, least)
        own = tl.where(at == centre, cluster, own)
    tl.store(owner + prompt * tokens + at, tl.where(own >= 0, own, nearest).to(tl.int64), mask=inside)
