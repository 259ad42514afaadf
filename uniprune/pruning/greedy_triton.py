"""Greedy selections as one GPU kernel each, written in Triton: no launch and no synchronisation per pick.

One block of threads per prompt keeps the state of all its tokens in registers and makes every pick; of the matrix it
reads one row per pick. `uniprune.pruning.greedy` chooses between these kernels and its loops of torch operations, which
make the same picks.

A pick of a determinantal point process needs what all picks before it left. A kernel makes `PICKS` of them; one product
then takes their rows out of the matrix for the next, so that a block of threads never reads more rows than these.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, repeat
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILES = {1024: 16, 2048: 16, 4096: 8, 16384: 1}
"""Kernels are compiled for these many tokens, with so many rows of the factor read at a time: what registers hold in
float32."""

MOST_TOKENS = max(TILES)
PICKS = 32
"""Picks of `dpp_map` that one kernel makes."""
FARTHEST_WARPS, DPP_WARPS = 8, 16

Loop = Callable[..., Tensor]


def farthest_points(distance: Tensor, nearest: Tensor, count: int, fresh: bool = False, room: int = 0) -> Tensor:
    """[..., count] picks, each the point that is farthest from everything selected; of equal ones the first.

    Args:
        distance: [..., N, N] symmetric distances, rows contiguous.
        nearest: [..., N] distance of every point to the nearest selected one; -inf for selected points.
        count: picks to return, at most as many as there are unselected points.
        fresh: nothing is selected yet; `nearest` decides the first pick only.
        room: least size of the kernel to use.
    """
    matrices, start = _prompts(distance, nearest)
    prompts, tokens = start.shape
    picks = torch.empty(prompts, count, dtype=torch.int64, device=distance.device)
    with torch.cuda.device_of(distance):  # Triton launches where torch's current device is
        _farthest_points[(prompts,)](
            *(matrices, start, picks, tokens, matrices.stride(0), matrices.stride(1), count, int(fresh)),
            SIZE=_size(max(room, tokens)),
            num_warps=FARTHEST_WARPS,
        )
    return picks.view(*nearest.shape[:-1], count)


def dpp_map(kernel: Tensor, gain: Tensor, floor: Tensor, count: int, room: int = 0) -> Tensor:
    """[..., count] picks of the greedy MAP set of a determinantal point process; see `uniprune.pruning.greedy.dpp_map`.

    Args:
        kernel: [..., N, N] symmetric and positive semi-definite, rows contiguous.
        gain: [..., N] its diagonal.
        floor: [...] gain below which a row is rounding noise.
        count: picks to return, at most N.
        room: least size of the kernel to use.
    """
    matrices, left = _prompts(kernel, gain)
    prompts, tokens = left.shape
    picks = torch.empty(prompts, count, dtype=torch.int64, device=kernel.device)
    factor, size = kernel.new_empty(prompts, min(PICKS, count), tokens), _size(max(room, tokens))
    floor, before, left = floor.contiguous(), left, torch.empty_like(left)
    for first in range(0, count, PICKS):
        if first:  # of the other tokens, what the picks so far leave
            out = None if first == PICKS else matrices
            matrices, before = torch.baddbmm(matrices, factor.mT, factor, alpha=-1, out=out), left
        strides = matrices.stride(0), matrices.stride(1)
        with torch.cuda.device_of(kernel):
            _dpp_map[(prompts,)](
                *(matrices, before, left, floor, factor, picks, tokens, *strides, count, first),
                *(min(count, first + PICKS), factor.stride(0)),
                SIZE=size,
                ROWS=TILES[size],
                num_warps=DPP_WARPS,
            )
    return picks.view(*gain.shape[:-1], count)


def disagreement(farthest_loop: Loop, dpp_loop: Loop, device: torch.device, dtype: torch.dtype, picks: int = 60) -> str:
    """Compare the kernels of every size with the loops on random points; return the first difference, "" for none.

    Two prompts are decided at once, the second with the points of the first in reverse; `picks` for either.

    Raises:
        Exception: a kernel cannot be compiled or run here.
    """
    points = torch.randn(300, 320, generator=torch.Generator().manual_seed(0))
    points = torch.stack((points, points.flip(0))).to(device, dtype)
    kernel = points @ points.mT
    square = kernel.diagonal(dim1=-2, dim2=-1).contiguous()
    distance = square[..., None] + square[:, None] - 2 * kernel
    nearest, floor = distance[:, 7].clone(), square.amax(-1) * 1e-6
    nearest[:, 7] = -torch.inf
    for room, fresh in zip(TILES, cycle((True, False)), strict=False):
        found = farthest_points(distance, nearest, picks, fresh, room)
        if not _alike(found, farthest_loop, distance, nearest, picks, fresh):
            return f"the kernel of {room} tokens for farthest points makes other picks"
        found = dpp_map(kernel, square, floor, picks, room)
        if not _alike(found, dpp_loop, kernel, square, floor, picks):
            return f"the kernel of {room} tokens for determinantal point processes makes other picks"
    return ""


def _alike(found: Tensor, loop: Loop, matrices: Tensor, states: Tensor, *more: Any) -> bool:
    """Check whether the loop makes the picks `found` for each prompt, without changing its state."""
    every = zip(matrices, states.clone(), *(x if isinstance(x, Tensor) else repeat(x) for x in more), strict=False)
    return torch.equal(found, torch.stack([loop(*prompt) for prompt in every]))


def _prompts(matrix: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices as [P, N, N] and the state of their tokens as [P, N], contiguous."""
    tokens = state.shape[-1]
    matrices = matrix[None] if matrix.dim() == 2 else matrix.flatten(0, -3)  # rows may lie apart
    return matrices, state.reshape(-1, tokens).contiguous()


def _size(tokens: int) -> int:
    return next(size for size in TILES if size >= tokens)


# Numbers of tokens and picks change from prompt to prompt: a kernel must not be compiled for each.
# Triton has no types: its decorator and its language count as untyped.
@triton.jit(do_not_specialize=["tokens", "apart", "stride", "count", "fresh"])  # type: ignore[untyped-decorator]
def _farthest_points(  # type: ignore[no-untyped-def]
    distance, nearest, picks, tokens, apart, stride, count, fresh, SIZE: tl.constexpr
):
    prompt = tl.program_id(0).to(tl.int64)
    distance += prompt * apart
    picks += prompt * count
    at = tl.arange(0, SIZE)
    inside = at < tokens
    near = tl.load(nearest + prompt * tokens + at, mask=inside, other=float("-inf"))
    for step in range(count):
        pick = tl.minimum(tl.argmax(near, 0), tokens - 1).to(tl.int64)  # in bounds even if everything is NaN
        tl.store(picks + step, pick)
        row = tl.load(distance + pick * stride + at, mask=inside, other=float("-inf"))
        near = tl.where(step < fresh, float("inf"), near)  # the first of all picks has only its own row
        near = tl.where(at == pick, float("-inf"), tl.minimum(near, row))


@triton.jit(do_not_specialize=["tokens", "apart", "stride", "count", "first", "stop", "block"])  # type: ignore[untyped-decorator]
def _dpp_map(  # type: ignore[no-untyped-def]
    kernel, gain, gain_left, floor, factor, picks, tokens, apart, stride, count, first, stop, block,
    SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Make picks number `first` to `stop` of `count`; `kernel` and `gain` are what the picks before left."""
    prompt = tl.program_id(0).to(tl.int64)
    kernel += prompt * apart
    factor += prompt * block
    picks += prompt * count + first
    at = tl.arange(0, SIZE)
    some = tl.arange(0, ROWS)
    inside = at < tokens
    left = tl.load(gain + prompt * tokens + at, mask=inside, other=float("-inf"))
    least = tl.load(floor + prompt)
    for step in range(stop - first):
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
    tl.store(gain_left + prompt * tokens + at, left, mask=inside)
