"""Distances to the nearest denser token as one GPU kernel, written in Triton: a program per token, nothing sorted."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from uniprune.pruning.clustering import SIZES


def separations(distance: Tensor, density: Tensor, ordered: bool) -> Tensor:
    """Return [P, N] distance of every token to its nearest denser one; see `uniprune.pruning.clustering.separations`.

    Args:
        distance: [P, N, N] contiguous.
        density: [P, N] contiguous.
        ordered: whether the first of two equally dense tokens counts as the denser one.
    """
    far, nearest = distance.amax((-2, -1)), distance.new_empty(density.shape)
    prompts, tokens = density.shape
    size = next(size for size in SIZES if size >= tokens)
    with torch.cuda.device_of(distance):  # Triton launches where torch's current device is
        _separations[(tokens, prompts)](distance, density, far, nearest, tokens, ORDERED=ordered, SIZE=size)
    return nearest


# Numbers of tokens change from prompt to prompt: a kernel must not be compiled for each.
# Triton has no types: its decorator and its language count as untyped.
@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _separations(  # type: ignore[no-untyped-def]
    distance, density, far, nearest, tokens, ORDERED: tl.constexpr, SIZE: tl.constexpr
):
    token, prompt = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at = tl.arange(0, SIZE)
    inside = at < tokens
    own = tl.load(density + prompt * tokens + token)
    other = tl.load(density + prompt * tokens + at, mask=inside, other=0.0)
    denser = other > own
    if ORDERED:
        denser = denser | ((other == own) & (at < token))
    denser = denser & inside
    row = tl.load(distance + (prompt * tokens + token) * tokens + at, mask=denser, other=float("inf"))
    found = tl.max(denser.to(tl.int32), 0) > 0
    tl.store(nearest + prompt * tokens + token, tl.where(found, tl.min(row, 0), tl.load(far + prompt)))
