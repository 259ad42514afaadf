"""Thinning out a ranking by similarity, round after round.

On CUDA devices the rounds of all prompts are a few kernels (`uniprune.pruning.thinning_triton`); elsewhere, and where
Triton is missing, a round is a few torch operations.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from uniprune.pruning.functional import ROWS, cosine_similarity, on_cpu
from uniprune.utils.kernels import proven

MANY, LISTED = 600, 24
"""Candidates from which on lists of the most similar ones save time, and the length of such a list."""

SIZES = {512: (4, 4), 2048: (8, 8), 4096: (8, 16)}
"""GPU kernels are compiled for these many candidates, with so many warps for a list and for the rounds."""


def exact_cosines(features: Tensor) -> Tensor:
    """[..., N, N] cosines of `features` [..., N, C] in float64, of several prompts one by one.

    Their product might differ in the last bit, and would need the features of all in float64 at once.
    """
    if features.dim() == 2:
        return cosine_similarity(features.double())
    return torch.stack([exact_cosines(one) for one in features])


def drop_most_similar(similarity: Tensor, ranked: Tensor, keep: int, step: int = 8) -> Tensor:
    """Thin out a ranking by similarity between its even and its odd places, `step` tokens at a time.

    Each round splits the list by place, sorts the even half by its largest similarity to the odd half, drops the `step`
    most similar and appends the odd half, until `keep` are left. O(R / step) rounds of O(R^2), most of which read short
    lists only while many candidates are left.

    Args:
        similarity: [..., N, N] similarities; a dimension in front is of prompts.
        ranked: [..., R] candidates, best first.
        keep: how many of them to leave.
        step: most tokens dropped in one round.

    Returns:
        [..., keep] of the candidates. Chaotic by nature: the order after a round decides the next split, so one swap of
        nearly equal similarities changes the outcome.
    """
    if not keep or ranked.shape[-1] <= keep:
        return ranked[..., :keep] if not keep else ranked
    kernels = fused(similarity, ranked.shape[-1])
    if kernels is not None:
        prompts = similarity.reshape(-1, *similarity.shape[-2:]).contiguous()
        picks: Tensor = kernels.drop_most_similar(prompts, ranked.reshape(len(prompts), -1), keep, step)
        return picks.view(*ranked.shape[:-1], keep)
    if similarity.dim() == 2:
        return _drop_most_similar(similarity, ranked, keep, step)
    parts = [_drop_most_similar(*one, keep, step) for one in zip(similarity, ranked, strict=True)]
    return torch.stack(parts)


def _drop_most_similar(similarity: Tensor, ranked: Tensor, keep: int, step: int) -> Tensor:
    """Return [keep] of `ranked` [R], round by round; `keep` is at least one."""
    rest, lists = ranked, None
    while len(rest) > keep:
        even, odd = rest[0::2], rest[1::2]
        # On a GPU, reading which tokens a list does not help would have to be waited for.
        if not on_cpu(similarity) or len(rest) < MANY:
            closest = similarity[even[:, None], odd].amax(1)
        else:
            if lists is None or len(rest) <= lists.candidates / 2:  # by then many of those listed are gone
                lists = Shortlists(similarity, rest)
            closest = lists.largest(even, odd)
        drop = min(step, len(rest) - keep, len(even))
        rest = torch.cat((even[closest.argsort(descending=True, stable=True)][drop:], odd))
    return rest


class Shortlists:
    """Lists of the candidates most similar to each, to find its largest similarity to any set of others soon.

    Args:
        similarity: [N, N] similarities.
        candidates: [R] tokens that `largest` may be called with, at least `LISTED`.
    """

    def __init__(self, similarity: Tensor, candidates: Tensor) -> None:
        self.similarity, self.candidates = similarity, len(candidates)
        self.values = similarity.new_empty(len(similarity), LISTED)
        self.tokens = candidates.new_empty(len(similarity), LISTED)
        ascending = candidates.sort().values
        for rows in ascending.split(ROWS):
            self.values[rows], columns = similarity[rows][:, ascending].topk(LISTED, sorted=False)
            self.tokens[rows] = ascending[columns]

    def largest(self, tokens: Tensor, others: Tensor) -> Tensor:
        """[T] largest similarity of each of `tokens` [T] to `others` [M], disjoint and all of them candidates."""
        other = torch.zeros(len(self.similarity), dtype=torch.bool).index_fill_(0, others, True)
        found = self.values[tokens].masked_fill_(~other[self.tokens[tokens]], -torch.inf).amax(1)
        unlisted = found.isneginf().nonzero()[:, 0]
        found[unlisted] = self.similarity[tokens[unlisted, None], others].amax(1)
        return found


def fused(similarity: Tensor, candidates: int) -> ModuleType | None:
    """Return the module of GPU kernels if they thin out so many candidates by `similarity` [..., N, N], else None.

    They need a CUDA device, Triton (part of torch's CUDA builds), and candidates that one block of threads can hold.
    """
    usual = similarity.dtype in (torch.float32, torch.float64) and candidates <= max(SIZES)
    if not similarity.is_cuda or not usual or find_spec("triton") is None:
        return None
    needed = [size for size, smaller in zip(SIZES, (0, *SIZES), strict=False) if smaller < candidates]
    if not all(_proven(similarity.device, similarity.dtype, size) for size in needed):
        return None
    from uniprune.pruning import thinning_triton as kernels

    return kernels


@cache
def _proven(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Return whether the kernels of a size make the picks of the loop; tried once, so that timed calls are not."""
    what = f"rankings are thinned out on {device}"
    return proven(what, "round by round", lambda: disagreement(device, dtype, size))


def disagreement(device: torch.device, dtype: torch.dtype, size: int, tokens: int = 150) -> str:
    """Compare the kernels of a size with the loop, with and without ties; return the first difference, "" for none.

    Raises:
        Exception: a kernel cannot be compiled or run here.
    """
    from uniprune.pruning import thinning_triton as kernels

    draw = torch.Generator().manual_seed(0)
    points = torch.randn(2, tokens, 12, generator=draw, dtype=torch.float64)
    ranked = torch.stack([torch.randperm(tokens, generator=draw)[:-7] for _ in points]).to(device)
    for digits, named in ((8, "distinct"), (0, "equal")):
        similarity = (points @ points.mT).round(decimals=digits).to(device, dtype)
        want = [_drop_most_similar(*one, 9, 5) for one in zip(similarity, ranked, strict=True)]
        if not torch.equal(kernels.drop_most_similar(similarity, ranked, 9, 5, size), torch.stack(want)):
            return f"the kernel of {size} candidates makes other picks of {named} similarities"
    return ""
