"""Rounds of `uniprune.pruning.thinning.drop_most_similar` as GPU kernels, written in Triton: no launch per round.

One block of threads per prompt makes the rounds. Only their order is kept in memory; a token's largest similarity to
the odd half is the first of its list of most similar candidates that is in that half, or, where no listed one is, is
looked up in the matrix. Lists are made anew when many candidates are gone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from uniprune.pruning.thinning import SIZES

MOST = max(SIZES)
LISTED = 32
"""Length of a list: at `LEFT`, none to a few tokens per round find nothing in theirs."""
LEFT = 0.7
"""Share of the candidates that is left when lists are made anew."""


def size(candidates: int) -> int:
    """Return the size of the kernels for so many candidates."""
    return next(size for size in SIZES if size >= candidates)


def phases(candidates: int, keep: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the candidates and the number of rounds between one making of the lists and the next."""
    now = candidates
    while now > keep:
        before, rounds = now, 0
        while now > max(keep, int(before * LEFT)):
            now -= min(step, now - keep, (now + 1) // 2)
            rounds += 1
        yield before, rounds


def drop_most_similar(similarity: Tensor, ranked: Tensor, keep: int, step: int, room: int = 0) -> Tensor:
    """Return [P, keep] of the candidates `ranked` [P, R]; see `uniprune.pruning.thinning.drop_most_similar`.

    Args:
        similarity: [P, N, N] contiguous, float32 or float64.
        ranked: candidates of every prompt; all -N - 1 where there is no ranking.
        keep: how many of them to leave, at least one.
        step: most tokens dropped in one round.
        room: least size of the kernels to use.
    """
    prompts, tokens = similarity.shape[:2]
    rest = ranked.clamp(min=0).int()
    device = similarity.device
    values = torch.empty(prompts, tokens, LISTED, dtype=torch.float64, device=device)
    listed = torch.empty(prompts, tokens, LISTED, dtype=torch.int32, device=device)
    odd = torch.empty(prompts, tokens, dtype=torch.int8, device=device)
    keys = torch.empty(prompts, 2, MOST, dtype=torch.int64, device=device)
    lists = {"LISTED": LISTED}
    with torch.cuda.device_of(similarity):  # Triton launches where torch's current device is
        for length, rounds in phases(rest.shape[1], keep, step):
            most = size(max(room, length))
            few, many = SIZES[most]
            _list[(length, prompts)](
                similarity, rest, odd, values, listed, tokens, rest.shape[1], length,
                SIZE=most, num_warps=few, **lists,
            )  # fmt: skip
            _round[(prompts,)](
                similarity, rest, odd, values, listed, keys, tokens, rest.shape[1], length, keep, step, rounds,
                SIZE=most // 2, STEPS=(most // 2).bit_length() - 1, STRIDE=MOST, num_warps=many, **lists,
            )  # fmt: skip
    return rest[:, :keep].long().where(ranked[:, :1] >= 0, -tokens - 1)


# Numbers of tokens and rounds change from prompt to prompt: a kernel must not be compiled for each.
# Triton has no types: its decorator and its language count as untyped.
@triton.jit(do_not_specialize=["tokens", "width", "length"])  # type: ignore[untyped-decorator]
def _list(  # type: ignore[no-untyped-def]
    similarity, rest, odd, values, listed, tokens, width, length, SIZE: tl.constexpr, LISTED: tl.constexpr
):
    """Store the candidates most similar to one, and how similar they are; -1 where there are no more."""
    place, prompt = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rest += prompt * width
    at = tl.arange(0, SIZE)
    own = prompt * tokens + tl.load(rest + place)
    others = tl.load(rest + at, mask=at < length, other=0)
    like = tl.load(similarity + own * tokens + others, mask=at < length, other=float("-inf")).to(tl.float64)
    like = tl.where(at == place, float("-inf"), like)
    tl.store(odd + own, 0)
    values += own * LISTED
    listed += own * LISTED
    for step in range(LISTED):
        best, where = tl.max(like, 0, return_indices=True)
        where = tl.minimum(where, length - 1)  # in bounds even if everything is NaN
        tl.store(values + step, best)
        tl.store(listed + step, tl.where(best > float("-inf"), tl.load(rest + where), -1))
        like = tl.where(at == where, float("-inf"), like)


@triton.jit(do_not_specialize=["tokens", "width", "length", "keep", "step", "rounds"])  # type: ignore[untyped-decorator]
def _round(  # type: ignore[no-untyped-def]
    similarity, rest, odd, values, listed, keys, tokens, width, length, keep, step, rounds,
    SIZE: tl.constexpr, STEPS: tl.constexpr, STRIDE: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    """Make rounds: `rest` holds the candidates in their order, `odd` marks those at odd places."""
    prompt = tl.program_id(0).to(tl.int64)
    similarity += prompt * tokens * tokens
    rest += prompt * width
    odd += prompt * tokens
    values += prompt * tokens * LISTED
    listed += prompt * tokens * LISTED
    ordered = keys + prompt * 2 * STRIDE
    unordered = ordered + STRIDE
    at = tl.arange(0, SIZE)
    for _ in range(rounds):
        half, others = (length + 1) // 2, length // 2
        drop = tl.minimum(step, tl.minimum(length - keep, half))
        inside, paired = at < half, at < others
        own = tl.load(rest + 2 * at, mask=inside, other=0)
        other = tl.load(rest + 2 * at + 1, mask=paired, other=0)
        tl.store(odd + own, 0, mask=inside)
        tl.store(odd + other, 1, mask=paired)
        tl.debug_barrier()  # what follows reads what other threads have stored

        place = tl.where(inside, LISTED, -1)
        first = 0
        waiting = half
        while waiting > 0:
            for more in tl.static_range(4):
                looking = place == LISTED
                token = tl.load(listed + own * LISTED + first + more, mask=looking, other=-1)
                hit = tl.load(odd + token, mask=looking & (token >= 0), other=0) > 0
                place = tl.where(hit, first + more, place)
            first += 4
            waiting = tl.where(first < LISTED, tl.sum((place == LISTED).to(tl.int32), 0), 0)
        best = tl.load(values + own * LISTED + place, mask=inside & (place < LISTED), other=float("-inf"))

        unlisted = place == LISTED
        waiting = tl.sum(unlisted.to(tl.int32), 0)
        while waiting > 0:
            where = tl.max(tl.where(unlisted, at, 0), 0)
            row = tl.load(rest + 2 * where).to(tl.int64) * tokens
            like = tl.load(similarity + row + other, mask=paired, other=float("-inf")).to(tl.float64)
            best = tl.where(at == where, tl.max(like, 0), best)
            unlisted = unlisted & (at != where)
            waiting -= 1

        # As integers of the same order, that have no NaN and one zero.
        bits = tl.where(best == 0, 0.0, best).to(tl.int64, bitcast=True)
        key = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)
        key = tl.where(inside, key, -0x8000000000000000)
        tl.store(ordered + at, tl.sort(key, descending=True))
        tl.store(unordered + at, key)
        tl.debug_barrier()

        to = tl.zeros([SIZE], tl.int32)  # how many are larger
        for bit in tl.static_range(STEPS):
            larger = tl.load(ordered + to + (SIZE >> (bit + 1)) - 1) > key
            to += tl.where(larger, SIZE >> (bit + 1), 0)
        following = at + 1 < half
        this = tl.load(ordered + at, mask=following, other=0)
        equal = tl.load(ordered + at + 1, mask=following, other=1) == this
        if tl.sum((following & equal).to(tl.int32), 0) > 0:  # of equal ones the first comes first
            for earlier in range(half):
                to += ((tl.load(unordered + earlier) == key) & (earlier < at)).to(tl.int32)

        tl.store(rest + to - drop, own, mask=inside & (to >= drop))
        tl.store(rest + half - drop + at, other, mask=paired)
        tl.debug_barrier()
        length -= drop
