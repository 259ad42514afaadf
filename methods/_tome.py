"""Bipartite soft matching, written from the paper (arXiv 2210.09461)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.pruning.functional import at_least_float32, top_k


def matched(keys: Tensor, merges: int, protected: int) -> tuple[Tensor, Tensor]:
    """Return the tokens [r] of the even half that merge, and those [r] of the odd half that they merge into.

    Every even token has one edge, to the odd token with the most similar key; the most similar edges are taken.

    Args:
        keys: [N, d], means over heads.
        merges: r, at most half of the tokens that are not protected.
        protected: first tokens, which neither merge nor take others.
    """
    normed = F.normalize(at_least_float32(keys), dim=-1)
    similarity = normed[::2] @ normed[1::2].T
    similarity[: (protected + 1) // 2] = -torch.inf
    similarity[:, : protected // 2] = -torch.inf
    into = top_k(similarity, 1)
    best = top_k(similarity.gather(1, into)[:, 0], merges)
    return 2 * best, 2 * into[best, 0] + 1


def merged(values: Tensor, sizes: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Return [N, C] the means of `values` [N, C], weighted by `sizes` [N], of what meets in each target; no others."""
    weighted = values * sizes[:, None]
    totals = sizes.index_add(0, targets, sizes[sources])
    means = weighted.index_add(0, targets, weighted[sources]) / totals[:, None]
    changed = torch.zeros_like(sizes, dtype=torch.bool).index_fill_(0, targets, True)
    return torch.where(changed[:, None], means, values)


def spread(total: int, blocks: int, inflection: float) -> list[int]:
    """Return whole numbers, `total` together, that grow linearly from 1 - `inflection` to 1 + `inflection` parts."""
    steps = [1 - inflection + 2 * inflection * b / max(blocks - 1, 1) for b in range(blocks)] if blocks > 1 else [1.0]
    ends = [math.floor(total * done / sum(steps) + 0.5) for done in accumulate(steps, initial=0.0)]
    return [after - before for before, after in pairwise(ends)]


def constant(r: int, blocks: int, inflection: float) -> Sequence[int]:
    """Return the numbers of blocks for a mean of `r` each, rounded down, as the release has them."""
    first = math.floor(r * (1 - inflection))
    last = 2 * r - first
    return [math.floor(first + b * (last - first) / max(blocks - 1, 1)) for b in range(blocks)]
