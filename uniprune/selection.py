"""Selection rules that several methods share. All break ties towards the lowest index and score in float32 or wider."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.pruner import Selection
from uniprune.view import Grid

Order = Literal["raster", "release"]
"""Kept tokens in their own places, or in the order in which a release hands them over (`in_order`)."""

ROWS = 128
"""Rows of a pairwise matrix worked on at a time: they stay in the processor's cache."""


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or float64 when it already is: half precision loses half the picks of a greedy rule."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def top_k(scores: Tensor, keep: int) -> Tensor:
    """[keep] indices of the largest of `scores` [N], best first; equal scores in index order. O(N log N)."""
    return scores.argsort(descending=True, stable=True)[:keep]


def count_outliers(scores: Tensor) -> int:
    """How many of `scores` [N] lie above Tukey's fence Q3 + 1.5 (Q3 - Q1), quartiles interpolated. O(N log N)."""
    low, high = scores.quantile(torch.tensor([0.25, 0.75]).to(scores))
    return int((scores > high + 1.5 * (high - low)).sum())


def random_subset(tokens: int, keep: int, generator: torch.Generator) -> Tensor:
    """[keep] of `tokens` indices, uniform without replacement, in drawing order, on the generator's device. O(N)."""
    return torch.randperm(tokens, generator=generator, device=generator.device)[:keep]


def complement(tokens: int, taken: Tensor) -> Tensor:
    """[tokens - taken] indices that are not in `taken` [T] (unique), ascending. O(tokens)."""
    free = torch.ones(tokens, dtype=torch.bool, device=taken.device)
    return free.index_fill(0, taken, False).nonzero()[:, 0]


def in_order(slots: Tensor, tokens: Tensor) -> Selection:
    """`tokens` [k, D] one after the other in the kept `slots` [k], whichever slot a token came from.

    For releases that hand tokens over in another order than the raster: a token takes the position of its new slot.
    """
    return Selection(slots.sort().values, tokens)


def cosine_similarity(a: Tensor, b: Tensor | None = None) -> Tensor:
    """[N, M] cosines of `a` [N, D] and `b` [M, D], or of `a` and itself; those of a zero vector are 0. O(N M D)."""
    left = F.normalize(at_least_float32(a), dim=-1)
    return gram(left) if b is None else left @ F.normalize(at_least_float32(b), dim=-1).T


def gram(x: Tensor) -> Tensor:
    """[N, N] x @ x.T, exactly symmetric, for little more than half its cost: below the diagonal it is copied."""
    product = x.new_empty(len(x), len(x))
    for start in range(0, len(x), ROWS):
        stop = start + ROWS
        torch.mm(x[start:stop], x[start:].T, out=product[start:stop, start:])
        product[stop:, start:stop] = product[start:stop, stop:].T
        block = product[start:stop, start:stop]
        block.copy_(block.triu() + block.triu(1).T)
    return product


def cosine_distance(tokens: Tensor) -> Tensor:
    """[N, N] pairwise 1 - cos of `tokens` [N, D]; a zero vector is at distance 1 from everything. O(N^2 D)."""
    # In place: at thousands of tokens, fetching fresh memory costs as much as the arithmetic.
    return cosine_similarity(tokens).neg_().add_(1)


def nearest_other(distance: Tensor) -> Tensor:
    """[N] distance of every point to its nearest other point, from `distance` [N, N]. O(N^2), a few rows copied."""
    nearest = distance.new_full((len(distance),), torch.inf)
    for start in range(0, len(distance), ROWS):
        rows = distance[start : start + ROWS].clone()
        rows.diagonal(start).fill_(torch.inf)
        nearest = torch.minimum(nearest, rows.amin(0))
    return nearest


def farthest_points(distance: Tensor, keep: int, seeds: Tensor | None = None) -> Tensor:
    """Greedy max-min diversity: always take the point whose nearest selected point is farthest away.

    Args:
        distance: [N, N] symmetric distances.
        keep: points wanted in all, seeds included.
        seeds: [S] points already selected; without any, the first pick is the one with the farthest nearest neighbour.

    Returns:
        [keep] distinct indices in picking order. Selected points are masked, so duplicates of them are taken only when
        nothing else is left. O(N) per pick.
    """
    if seeds is None:
        seeds = nearest_other(distance).argmax()[None]
    picks = list(seeds[:keep].split(1))
    # A pick is a tensor, so that a device is never waited for; [1, N] saves reshaping at every one of them.
    nearest = distance.index_select(0, seeds).amin(0, keepdim=True).index_fill_(1, seeds, -torch.inf)
    while len(picks) < keep:
        pick = nearest.argmax(1)
        torch.minimum(nearest, distance.index_select(0, pick), out=nearest)
        nearest.index_fill_(1, pick, -torch.inf)
        picks.append(pick)
    return torch.cat(picks)


def dpp_map(kernel: Tensor, keep: int) -> Tensor:
    """Greedy MAP of a determinantal point process: always add the token that enlarges the determinant most.

    Args:
        kernel: [N, N] symmetric and positive semi-definite.
        keep: tokens wanted, at most N.

    Returns:
        [keep] distinct indices in picking order. O(N keep^2), by the incremental Cholesky form (arXiv 1709.05135). Past
        the kernel's numerical rank nothing is left to gain: the rest is taken by its rounding noise, still distinct.
    """
    gain, picks = kernel.diagonal()[None].clone(), []
    info = torch.finfo(kernel.dtype)
    floor = (gain.max() * len(kernel) * info.eps).clamp_(min=info.tiny)
    factor = kernel.new_empty(keep, len(kernel))
    for step in range(keep):
        pick = gain.argmax(1)
        row, done = kernel.index_select(0, pick), factor[:step]
        if step:
            row.addmm_(done.index_select(1, pick).T, done, alpha=-1)
        # Below the floor a row is rounding noise, which would grow from pick to pick if it were scaled up further.
        row = torch.div(row, gain.index_select(1, pick).clamp_(min=floor).sqrt_(), out=factor[step : step + 1])
        gain.addcmul_(row, row, value=-1).index_fill_(1, pick, -torch.inf)
        picks.append(pick)
    return torch.cat(picks)


def drop_most_similar(similarity: Tensor, ranked: Tensor, keep: int, step: int = 8) -> Tensor:
    """Thin out a ranking by similarity between its even and its odd places, `step` tokens at a time.

    Each round splits the list by place, sorts the even half by its largest similarity to the odd half, drops the `step`
    most similar and appends the odd half, until `keep` are left. O(R / step) rounds of O(R^2).

    Args:
        similarity: [N, N] similarities.
        ranked: [R] candidates, best first.
        keep: how many of them to leave.
        step: most tokens dropped in one round.

    Returns:
        [keep] of the candidates. Chaotic by nature: the order after a round decides the next split, so one swap of
        nearly equal similarities changes the outcome.
    """
    rest = ranked if keep else ranked[:0]
    while len(rest) > keep:
        even, odd = rest[0::2], rest[1::2]
        closest = similarity[even[:, None], odd].amax(1)
        drop = min(step, len(rest) - keep, len(even))
        rest = torch.cat((even[closest.argsort(descending=True, stable=True)][drop:], odd))
    return rest


def add_neighbours(features: Tensor, anchors: Tensor, keys: Tensor, weights: Tensor, neighbours: int) -> Tensor:
    """k-nearest merging: each anchor plus the weighted sum of the tokens most similar to it.

    Args:
        features: [N, C] what is summed.
        anchors: [A] tokens to merge into.
        keys: [N, d] what is compared, by cosine.
        weights: [N] of the added tokens.
        neighbours: how many of all other tokens, anchors included, are added to an anchor.

    Returns:
        [A, C], nothing renormalised. O(A N (d + C)).
    """
    similarity = cosine_similarity(keys[anchors], keys).scatter_(1, anchors[:, None], -torch.inf)
    nearest = largest_in_rows(similarity, min(neighbours, len(features) - 1))
    return features[anchors] + (nearest * weights.to(features)) @ features


def largest_in_rows(values: Tensor, count: int) -> Tensor:
    """[A, N] True at the `count` largest of each row of `values`, of equal ones the first. O(A N), without sorting."""
    if not count:
        return torch.zeros_like(values, dtype=torch.bool)
    least = values.topk(count, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    return above | (equal & (equal.cumsum(1) <= count - above.sum(1, keepdim=True)))


def merge_with_background(features: Tensor, anchors: Tensor, keys: Tensor, weights: Tensor, neighbours: int) -> Tensor:
    """[A + 1, C]: `add_neighbours`, and one token more, the weighted sum of everything that is no anchor."""
    rest = complement(len(features), anchors)
    background = weights[rest].to(features) @ features[rest]
    return torch.cat((add_neighbours(features, anchors, keys, weights, neighbours), background[None]))


def merge_into_nearest(features: Tensor, keys: Tensor, anchors: Tensor, others: Tensor) -> Tensor:
    """Each anchor plus the mean of the `others` that are most similar to it, or alone when there are none.

    Args:
        features: [N, C] what is averaged.
        keys: [N, d] what is compared, by cosine.
        anchors: [A] tokens to merge into.
        others: [R] tokens that are each given to their nearest anchor.

    Returns:
        [A, C]. O(R A (d + C)).
    """
    if not len(anchors):
        return features[anchors]
    owner = cosine_similarity(keys[others], keys[anchors]).argmax(1)
    return features[anchors] + group_means(features[others], owner, len(anchors))


def group_means(features: Tensor, group: Tensor, count: int) -> Tensor:
    """[count, C] mean of the rows of `features` [N, C] in each group; 0 for an empty one. `group` is [N] in 0..count-1.

    O(N count C): a matrix product instead of a scatter, which is not deterministic on GPUs.
    """
    member = (group == torch.arange(count, device=group.device)[:, None]).to(features)
    return member @ features / member.sum(1, keepdim=True).clamp(min=1)


def pool_grid(features: Tensor, grids: Sequence[Grid], keep: int) -> tuple[Tensor, Tensor]:
    """Average pooling to any number of tokens: every frame is cut into blocks that are as square as the grid allows.

    Args:
        features: [N, C] in raster order, grid after grid.
        grids: (t, h, w) of every grid.
        keep: blocks in all, at most N.

    Returns:
        [keep] the token in the middle of each block, ascending by block, and [keep, C] the blocks' means. A quarter of
        an even square grid gives exactly 2 x 2 blocks. Frames whose share of `keep` rounds to nothing are dropped.
        O(N keep C).
    """
    block = grid_blocks(grids, keep).to(features.device)
    tokens = (block >= 0).nonzero()[:, 0]
    block = block[tokens]
    size = block.bincount(minlength=keep)
    middle = tokens[block.argsort(stable=True)][size.cumsum(0) - size + (size - 1) // 2]
    return middle, group_means(features[tokens], block, keep)


def grid_blocks(grids: Sequence[Grid], keep: int) -> Tensor:
    """[N] number of the block, 0..keep-1, that each token of the grids belongs to; -1 where a frame got none. O(N)."""
    frames = [(h, w) for t, h, w in grids for _ in range(t)]
    total = sum(h * w for h, w in frames)
    blocks, done, first = [], 0, 0
    for h, w in frames:
        done += h * w
        last = (2 * keep * done + total) // (2 * total)
        blocks.append(_frame_blocks(h, w, last - first) + first if last > first else torch.full((h * w,), -1))
        first = last
    return torch.cat(blocks)


def _frame_blocks(height: int, width: int, count: int) -> Tensor:
    """[height * width] block of each cell of a frame: bands of rows, each cut into columns."""
    bands = max(1, round(math.sqrt(count * height / width)))
    bands = max(math.ceil(count / width), min(bands, height, count))
    band = torch.arange(height) * bands // height
    first = band * count // bands
    columns = (band + 1) * count // bands - first
    return (first[:, None] + torch.arange(width) * columns[:, None] // width).flatten()
