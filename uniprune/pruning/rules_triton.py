"""Selection rules as one GPU kernel each, written in Triton, where torch needs several operations or a sort.

Starting an operation takes longer than most of them run. `uniprune.pruning.functional` chooses between these kernels
and operations of torch, which choose the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

OWN, OTHERS = 32, 256
"""Values that one program ranks, and how many it compares with them at a time."""
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
MEMBERS, COLUMNS = 16, 256
"""Rows and columns that are added up at a time."""


def ranked(scores: Tensor, keep: int) -> Tensor:
    """Return [..., keep] places of the largest of `scores` [..., N], best first; all -N - 1 where one is NaN.

    A value's rank is the number of values before it: what is counted needs no sort.
    """
    tokens, flat = scores.shape[-1], scores.contiguous()
    order = torch.empty((*scores.shape[:-1], keep), dtype=torch.int64, device=scores.device)
    with torch.cuda.device_of(scores):  # Triton launches where torch's current device is
        _ranked[(triton.cdiv(tokens, OWN), flat.numel() // tokens)](flat, order, tokens, keep, OWN=OWN, OTHERS=OTHERS)
    return order


def group_means(features: Tensor, group: Tensor, count: int) -> Tensor:
    """Return [..., count, C] means; see `uniprune.pruning.functional.group_means`."""
    (tokens, width), lead = features.shape[-2:], group.shape[:-1]
    features, group = features.contiguous(), group.contiguous()
    means = torch.empty((*lead, count, width), dtype=features.dtype, device=features.device)
    with torch.cuda.device_of(features):
        _group_means[(triton.cdiv(width, COLUMNS), count, lead.numel())](
            features, group, means, tokens, width, MEMBERS=MEMBERS, COLUMNS=COLUMNS
        )
    return means


def disagreement(
    top_k: Callable[[Tensor, int], Tensor], means: Callable[[Tensor, Tensor, int], Tensor], device: torch.device
) -> str:
    """Compare the kernels with operations of torch; return the first difference, "" for none.

    Raises:
        Exception: a kernel cannot be compiled or run here.
    """
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 301, generator=draw)
    scores[1].mul_(2).round_()
    scores[2, 7] = torch.nan
    for dtype in DTYPES:
        there = scores.to(device, dtype)
        want = torch.stack([top_k(one, 300) for one in there[:2]])
        if not torch.equal(ranked(there, 300)[:2], want) or bool((ranked(there, 300)[2] != -302).any()):
            return f"other ranks of scores in {dtype}"
    if not torch.equal(ranked((there[0] > 0).byte(), 200), top_k((there[0] > 0).float(), 200)):
        return "other places of what is true"
    features, group = torch.randn(2, 77, 300, generator=draw), torch.randint(9, (2, 77), generator=draw)
    there, own = features.to(device), group.to(device)
    if not torch.allclose(group_means(there, own, 10), means(there, own, 10), rtol=1e-5, atol=1e-6):
        return "other means of groups"
    return ""


# Numbers of tokens change from prompt to prompt: a kernel must not be compiled for each.
# Triton has no types: its decorator and its language count as untyped.
@triton.jit(do_not_specialize=["tokens", "keep"])  # type: ignore[untyped-decorator]
def _ranked(  # type: ignore[no-untyped-def]
    scores, order, tokens, keep, OWN: tl.constexpr, OTHERS: tl.constexpr
):
    prompt = tl.program_id(1).to(tl.int64)
    scores += prompt * tokens
    order += prompt * keep
    at = tl.program_id(0) * OWN + tl.arange(0, OWN)
    own = tl.load(scores + at, mask=at < tokens, other=0)
    rank = tl.zeros([OWN], tl.int32)
    broken = tl.zeros([OTHERS], tl.int32)
    for begin in range(0, tokens, OTHERS):
        place = begin + tl.arange(0, OTHERS)
        other = tl.load(scores + place, mask=place < tokens, other=0)
        first = (other[None, :] == own[:, None]) & (place[None, :] < at[:, None])
        before = ((other[None, :] > own[:, None]) | first) & (place[None, :] < tokens)
        rank += tl.sum(before.to(tl.int32), 1)
        broken += (other != other).to(tl.int32)
    unknown = tl.sum(broken, 0) > 0
    to = tl.where(unknown, at, rank)
    tl.store(order + to, tl.where(unknown, -tokens - 1, at).to(tl.int64), mask=(at < tokens) & (to < keep))


@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _group_means(  # type: ignore[no-untyped-def]
    features, group, means, tokens, width, MEMBERS: tl.constexpr, COLUMNS: tl.constexpr
):
    own, prompt = tl.program_id(1), tl.program_id(2).to(tl.int64)
    features += prompt * tokens * width
    group += prompt * tokens
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    wide: tl.constexpr = tl.float64 if means.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros([COLUMNS], wide)
    count = tl.zeros([MEMBERS], tl.int32)
    for begin in range(0, tokens, MEMBERS):
        row = begin + tl.arange(0, MEMBERS)
        member = tl.load(group + row, mask=row < tokens, other=-1) == own
        some = tl.load(
            features + row.to(tl.int64)[:, None] * width + column[None, :],
            mask=member[:, None] & (column < width)[None, :],
            other=0.0,
        )
        total += tl.sum(some.to(wide), 0)
        count += member.to(tl.int32)
    size = tl.maximum(tl.sum(count, 0), 1)
    to = means + (prompt * tl.num_programs(1) + own) * width + column
    tl.store(to, total / size, mask=column < width)
