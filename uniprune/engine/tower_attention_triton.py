"""Sums over rows and columns of a softmax as two GPU kernels, written in Triton: no row is stored.

The first finds the logarithm of every row's sum of exponentials, the second adds up columns, a program per head and
block of keys: nothing is added atomically, so that results are the same in every call. Both multiply a head's queries
with its keys; sums are float32.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

TILES = {2: (128, 64, 4), 4: (32, 32, 4)}
"""By bytes of a number: rows that a program sums, how many others it takes at a time, and its warps. Full float32
products run without tensor cores, in registers, which hold less."""


def rows(dtype: torch.dtype) -> int:
    """Return the number of rows or columns that one program sums."""
    return TILES[dtype.itemsize][0]


def exchanged(query: Tensor, key: Tensor, scale: float, tiles: Tensor, skip: int, own: int) -> tuple[Tensor, Tensor]:
    """Return [B, S] attention emitted and received within spans, each the mean over heads and positions.

    Args:
        query: [B, heads, S, d], not yet scaled.
        key: the same.
        scale: of the products.
        tiles: [T, 3] int32 start and end of a span, and the first of up to `own` of its positions.
        skip: positions at the start that take part in the softmax but in no sum.
        own: positions of a tile, a power of two.
    """
    query, key = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key))
    batch, heads, length, width = query.shape
    _, others, warps = TILES[query.element_size()]
    # Positions outside all spans, and those that are skipped, have no tile: zeros.
    sums = torch.zeros(3, batch, heads, length, dtype=torch.float32, device=query.device)
    strides = (*query.stride()[:3], *key.stride()[:3])
    shape = {"WIDTH": triton.next_power_of_2(max(16, width)), "OWN": own, "OTHERS": others, "num_warps": warps}
    grid = (len(tiles), batch * heads)
    scale = scale * math.log2(math.e)
    with torch.cuda.device_of(query):  # Triton launches where torch's current device is
        _rows[grid](query, key, tiles, sums[0], sums[1], *strides, heads, length, width, skip, scale, **shape)
        _columns[grid](query, key, tiles, sums[0], sums[2], *strides, heads, length, width, skip, scale, **shape)
    emitted, received = sums[1:].mean(2)
    return emitted, received


# Lengths change from image to image: a kernel must not be compiled for each.
# Triton has no types: its decorator and its language count as untyped.
@triton.jit(do_not_specialize=["heads", "length", "skip"])  # type: ignore[untyped-decorator]
def _rows(  # type: ignore[no-untyped-def]
    query, key, tiles, logs, emitted, q_batch, q_head, q_row, k_batch, k_head, k_row,
    heads, length, width, skip, scale, WIDTH: tl.constexpr, OWN: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """Store of a tile's rows the logarithm of the sum of exponentials, and the mean of what is not skipped."""
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    start, stop, first = tl.load(tiles + tile * 3), tl.load(tiles + tile * 3 + 1), tl.load(tiles + tile * 3 + 2)
    query += (pair // heads) * q_batch + (pair % heads) * q_head
    key += (pair // heads) * k_batch + (pair % heads) * k_head
    row, across, some = first + tl.arange(0, OWN), tl.arange(0, WIDTH), tl.arange(0, OTHERS)
    inside = row < stop
    own = tl.load(
        query + row.to(tl.int64)[:, None] * q_row + across[None, :],
        mask=inside[:, None] & (across < width)[None, :],
        other=0.0,
    )
    top = tl.full([OWN], float("-inf"), tl.float32)
    total = tl.zeros([OWN], tl.float32)
    kept = tl.zeros([OWN], tl.float32)
    for begin in range(start, stop, OTHERS):
        column = begin + some
        other = tl.load(
            key + column.to(tl.int64)[None, :] * k_row + across[:, None],
            mask=(column < stop)[None, :] & (across < width)[:, None],
            other=0.0,
        )
        logit = tl.dot(own, other, input_precision="ieee") * scale
        logit = tl.where((column < stop)[None, :], logit, float("-inf"))
        higher = tl.maximum(top, tl.max(logit, 1))
        weight = tl.exp2(logit - higher[:, None])
        shrunk = tl.exp2(top - higher)
        total = total * shrunk + tl.sum(weight, 1)
        kept = kept * shrunk + tl.sum(tl.where((column >= skip)[None, :], weight, 0.0), 1)
        top = higher
    at = pair * length + row
    tl.store(logs + at, top + tl.log2(total), mask=inside)
    counted = stop - tl.maximum(start, skip)
    tl.store(emitted + at, kept / (total * counted), mask=inside & (row >= skip))


@triton.jit(do_not_specialize=["heads", "length", "skip"])  # type: ignore[untyped-decorator]
def _columns(  # type: ignore[no-untyped-def]
    query, key, tiles, logs, received, q_batch, q_head, q_row, k_batch, k_head, k_row,
    heads, length, width, skip, scale, WIDTH: tl.constexpr, OWN: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """Store of a tile's columns the mean over the rows that are not skipped."""
    tile, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    start, stop, first = tl.load(tiles + tile * 3), tl.load(tiles + tile * 3 + 1), tl.load(tiles + tile * 3 + 2)
    query += (pair // heads) * q_batch + (pair % heads) * q_head
    key += (pair // heads) * k_batch + (pair % heads) * k_head
    column, across, some = first + tl.arange(0, OWN), tl.arange(0, WIDTH), tl.arange(0, OTHERS)
    inside = column < stop
    own = tl.load(
        key + column.to(tl.int64)[:, None] * k_row + across[None, :],
        mask=inside[:, None] & (across < width)[None, :],
        other=0.0,
    )
    total = tl.zeros([OWN], tl.float32)
    begins = tl.maximum(start, skip)
    for begin in range(begins, stop, OTHERS):
        row = begin + some
        other = tl.load(
            query + row.to(tl.int64)[None, :] * q_row + across[:, None],
            mask=(row < stop)[None, :] & (across < width)[:, None],
            other=0.0,
        )
        log = tl.load(logs + pair * length + row, mask=row < stop, other=float("inf"))  # 2 ** -inf is 0
        total += tl.sum(tl.exp2(tl.dot(own, other, input_precision="ieee") * scale - log[None, :]), 1)
    tl.store(received + pair * length + column, total / (stop - begins), mask=inside & (column >= skip))
