"""Greedy selections as one GPU kernel each, written in Triton: no launch and no synchronisation per pick.

One block of threads keeps the state of all tokens in registers and makes every pick; of the matrix it reads one row per
pick. `uniprune.pruning.greedy` chooses between these kernels and its loops of torch operations, which make the same
picks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

TILES = {1024: 16, 2048: 16, 4096: 8, 16384: 1}
"""Kernels are compiled for these many tokens, with so many rows of the factor read at a time: what registers hold in
float32."""

MOST_TOKENS = max(TILES)
MOST_WORK = 2**21
"""Tokens times picks of `dpp_map` from which its loop should be faster: every pick reads all that was computed so far,
and one block of threads reads slower than many. An estimate, not measured."""
FARTHEST_WARPS, DPP_WARPS = 8, 16

Loop = Callable[..., Tensor]


def farthest_points(distance: Tensor, nearest: Tensor, count: int, room: int = 0) -> Tensor:
    """[count] picks, each the point that is farthest from everything selected; of equal ones the first.

    Args:
        distance: [N, N] symmetric distances, rows contiguous.
        nearest: [N] distance of every point to the nearest selected one; -inf for selected points.
        count: picks to return, at most as many as there are unselected points.
        room: least size of the kernel to use.
    """
    picks = torch.empty(count, dtype=torch.int64, device=distance.device)
    size = _size(max(room, len(nearest)))
    with torch.cuda.device_of(distance):  # Triton launches where torch's current device is
        _farthest_points[(1,)](
            distance, nearest, picks, len(nearest), distance.stride(0), count, SIZE=size, num_warps=FARTHEST_WARPS
        )
    return picks


def dpp_map(kernel: Tensor, gain: Tensor, floor: Tensor, count: int, room: int = 0) -> Tensor:
    """[count] picks of the greedy MAP set of a determinantal point process; see `uniprune.pruning.greedy.dpp_map`.

    Args:
        kernel: [N, N] symmetric and positive semi-definite, rows contiguous.
        gain: [N] its diagonal.
        floor: [] gain below which a row is rounding noise.
        count: picks to return, at most N.
        room: least size of the kernel to use.
    """
    picks = torch.empty(count, dtype=torch.int64, device=kernel.device)
    factor = kernel.new_empty(count, len(gain))
    size = _size(max(room, len(gain)))
    with torch.cuda.device_of(kernel):
        _dpp_map[(1,)](
            kernel,
            gain,
            floor,
            factor,
            picks,
            len(gain),
            kernel.stride(0),
            count,
            SIZE=size,
            ROWS=TILES[size],
            num_warps=DPP_WARPS,
        )
    return picks


def disagreement(farthest_loop: Loop, dpp_loop: Loop, device: torch.device, dtype: torch.dtype) -> str:
    """Compare the kernels of every size with the loops on random points; return the first difference, "" for none.

    Raises:
        Exception: a kernel cannot be compiled or run here.
    """
    points = torch.randn(300, 320, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    kernel = points @ points.T
    square = kernel.diagonal()
    distance = square[:, None] + square - 2 * kernel
    nearest = distance[7].index_fill(0, torch.tensor([7], device=device), -torch.inf)
    floor = square.max() * 1e-6
    for room in TILES:
        if not torch.equal(farthest_points(distance, nearest, 60, room), farthest_loop(distance, nearest.clone(), 60)):
            return f"the kernel of {room} tokens for farthest points makes other picks"
        if not torch.equal(
            dpp_map(kernel, square.clone(), floor, 60, room), dpp_loop(kernel, square.clone(), floor, 60)
        ):
            return f"the kernel of {room} tokens for determinantal point processes makes other picks"
    return ""


def _size(tokens: int) -> int:
    return next(size for size in TILES if size >= tokens)


# Numbers of tokens and picks change from prompt to prompt: a kernel must not be compiled for each.
# Triton has no types: its decorator and its language count as untyped.
@triton.jit(do_not_specialize=["tokens", "stride", "count"])  # type: ignore[untyped-decorator]
def _farthest_points(distance, nearest, picks, tokens, stride, count, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, SIZE)
    inside = at < tokens
    near = tl.load(nearest + at, mask=inside, other=float("-inf"))
    for step in range(count):
        pick = tl.minimum(tl.argmax(near, 0), tokens - 1).to(tl.int64)  # in bounds even if everything is NaN
        tl.store(picks + step, pick)
        row = tl.load(distance + pick * stride + at, mask=inside, other=float("-inf"))
        near = tl.where(at == pick, float("-inf"), tl.minimum(near, row))


@triton.jit(do_not_specialize=["tokens", "stride", "count"])  # type: ignore[untyped-decorator]
def _dpp_map(  # type: ignore[no-untyped-def]
    kernel, gain, floor, factor, picks, tokens, stride, count, SIZE: tl.constexpr, ROWS: tl.constexpr
):
    at = tl.arange(0, SIZE)
    some = tl.arange(0, ROWS)
    inside = at < tokens
    left = tl.load(gain + at, mask=inside, other=float("-inf"))
    least = tl.load(floor)
    for step in range(count):
        best, pick = tl.max(left, 0, return_indices=True)
        pick = tl.minimum(pick, tokens - 1).to(tl.int64)
        tl.store(picks + step, pick)
        row = tl.load(kernel + pick * stride + at, mask=inside, other=0.0)
        for start in range(0, step, ROWS):
            earlier = start + some < step
            begin = factor + (start + some) * tokens
            weight = tl.load(begin + pick, mask=earlier, other=0.0)
            rows = tl.load(begin[:, None] + at[None, :], mask=earlier[:, None] & inside[None, :], other=0.0)
            row -= tl.sum(weight[:, None] * rows, 0)
        row = row / tl.sqrt(tl.maximum(best, least))
        tl.store(factor + step * tokens + at, row, mask=inside)
        tl.debug_barrier()  # the next pick reads what other threads have stored
        left = tl.where(at == pick, float("-inf"), left - row * row)
