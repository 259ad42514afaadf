"""Selection rules that several methods share. All break ties towards the lowest index and score in float32 or wider."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.errors import PruningError
from uniprune.pruning.view import Grid

ROWS = 128
"""Rows of a pairwise matrix worked on at a time on a CPU: they stay in the processor's cache."""

GPU_ROWS = 4096
"""The same on a GPU, where starting an operation costs more than fetching its data."""

LEAST_NORM = 1e-12
"""Norm below which a vector counts as this long, as in `F.normalize`, so that zero vectors have cosine 0."""


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or float64 when it already is: half precision loses half the picks of a greedy rule."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def top_k(scores: Tensor, keep: int) -> Tensor:
    """[keep] indices of the largest of `scores` [N], best first; equal scores in index order. O(N log N).

    NaN has no rank. On a GPU, where raising an error would have to wait for the scores, all indices are then -N - 1:
    the engine refuses them when it reads the selection.

    Raises:
        PruningError: a score is NaN, on a CPU.
    """
    order, unknown = scores.argsort(descending=True, stable=True)[:keep], scores.isnan().any()
    if scores.device.type != "cpu":
        return order.masked_fill_(unknown, -len(scores) - 1)
    if unknown:
        raise PruningError(f"{int(scores.isnan().sum())} of {len(scores)} scores are NaN, so there is no ranking")
    return order


def count_outliers(scores: Tensor) -> int:
    """Count `scores` [N] above Tukey's fence Q3 + 1.5 (Q3 - Q1), quartiles interpolated. O(N log N)."""
    low, high = scores.quantile(torch.tensor([0.25, 0.75]).to(scores))
    return int((scores > high + 1.5 * (high - low)).sum())


def random_subset(tokens: int, keep: int, generator: torch.Generator) -> Tensor:
    """[keep] of `tokens` indices, uniform without replacement, in drawing order, on the generator's device. O(N)."""
    return torch.randperm(tokens, generator=generator, device=generator.device)[:keep]


def complement(tokens: int, taken: Tensor) -> Tensor:
    """[tokens - taken] indices that are not in `taken` [T] (unique), ascending. O(tokens)."""
    free = torch.ones(tokens, dtype=torch.bool, device=taken.device)
    return free.index_fill(0, taken, False).nonzero()[:, 0]


def cosine_similarity(a: Tensor, b: Tensor | None = None) -> Tensor:
    """[N, M] cosines of `a` [N, D] and `b` [M, D], or of `a` and itself; those of a zero vector are 0. O(N M D)."""
    left = F.normalize(at_least_float32(a), dim=-1)
    if b is None:
        return gram(left)
    right = at_least_float32(b)
    return (left @ right.T).mul_(inverse_norms(right))


def inverse_norms(x: Tensor) -> Tensor:
    """[N] factors that make the rows of `x` [N, D] unit vectors, without writing these. O(N D)."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norms.clamp_(min=LEAST_NORM).reciprocal_()


def rows_at_a_time(matrix: Tensor) -> int:
    """Return how many rows of `matrix` to work on at a time, by its device."""
    return GPU_ROWS if matrix.is_cuda else ROWS


def gram(x: Tensor) -> Tensor:
    """[N, N] x @ x.T, exactly symmetric; on a CPU for little more than half its cost, as one half is copied."""
    product, step = x.new_empty(len(x), len(x)), rows_at_a_time(x)
    for start in range(0, len(x), step):
        stop = start + step
        torch.mm(x[start:stop], x[start:].T, out=product[start:stop, start:])
        product[stop:, start:stop] = product[start:stop, stop:].T
        block = product[start:stop, start:stop]
        block.copy_(torch.maximum(block, block.T))
    return product


def cosine_distance(tokens: Tensor) -> Tensor:
    """[N, N] pairwise 1 - cos of `tokens` [N, D]; a zero vector is at distance 1 from everything. O(N^2 D)."""
    # In place: at thousands of tokens, fetching fresh memory costs as much as the arithmetic.
    return cosine_similarity(tokens).neg_().add_(1)


def add_neighbours(features: Tensor, anchors: Tensor, keys: Tensor, weights: Tensor, neighbours: int) -> Tensor:
    """k-nearest merging: each anchor plus the weighted sum of the tokens most similar to it.

    Args:
        features: [N, C] summed vectors.
        anchors: [A] tokens to merge into.
        keys: [N, d] vectors compared by cosine.
        weights: [N] of the added tokens.
        neighbours: how many of all other tokens, anchors included, are added to an anchor.

    Returns:
        [A, C], nothing renormalised. O(A N d + A neighbours C).
    """
    similarity = cosine_similarity(keys[anchors], keys).scatter_(1, anchors[:, None], -torch.inf)
    nearest = largest_in_rows(similarity, min(neighbours, len(features) - 1))
    return features[anchors] + weighted_sums(features, nearest, weights)


def weighted_sums(features: Tensor, members: Tensor, weights: Tensor) -> Tensor:
    """[G, C] sums of weights[i] x features[i] over the `members` [G, M] of every group. O(G M C), nothing gathered."""
    groups, size = members.shape
    ends, members = torch.arange(groups + 1, device=members.device) * size, members.flatten()
    chosen = weights.to(features)[members]
    return F.embedding_bag(members, features, ends, mode="sum", per_sample_weights=chosen, include_last_offset=True)


def largest_in_rows(values: Tensor, count: int) -> Tensor:
    """[A, count] columns of the largest of each row of `values` [A, N], ascending; of equal ones the first. O(A N).

    NaN counts as the smallest.
    """
    if not count:
        return values.new_empty(len(values), 0, dtype=torch.long)
    values = values.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    least = values.topk(count, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    chosen = above | (equal & (equal.cumsum(1) <= count - above.sum(1, keepdim=True)))
    return chosen.nonzero()[:, 1].view(-1, count)


def merge_with_background(features: Tensor, anchors: Tensor, keys: Tensor, weights: Tensor, neighbours: int) -> Tensor:
    """[A + 1, C]: `add_neighbours`, and one token more, the weighted sum of everything that is no anchor."""
    background = weights.to(features).index_fill(0, anchors, 0) @ features
    return torch.cat((add_neighbours(features, anchors, keys, weights, neighbours), background[None]))


def merge_into_nearest(features: Tensor, keys: Tensor, anchors: Tensor, others: Tensor) -> Tensor:
    """Each anchor plus the mean of the `others` that are most similar to it, or alone when there are none.

    Args:
        features: [N, C] averaged vectors.
        keys: [N, d] vectors compared by cosine.
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

    O(N C): rows of one group are summed in index order, not scattered, which is not deterministic on GPUs.
    """
    ordered, members = group.sort(stable=True)
    ends = torch.searchsorted(ordered, torch.arange(count + 1, device=group.device))
    sums = F.embedding_bag(members, features, ends, mode="sum", include_last_offset=True)
    return sums / ends.diff().clamp_(min=1)[:, None]


def pool_grid(features: Tensor, grids: Sequence[Grid], keep: int) -> tuple[Tensor, Tensor]:
    """Average pooling to any number of tokens: every frame is cut into blocks that are as square as the grid allows.

    Args:
        features: [N, C] in raster order, grid after grid.
        grids: (t, h, w) of every grid.
        keep: blocks in all, at most N.

    Returns:
        [keep] the token in the middle of each block, ascending by block, and [keep, C] the blocks' means. A quarter of
        an even square grid gives exactly 2 x 2 blocks. Frames whose share of `keep` rounds to nothing are dropped.
        O(N C).
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


def rotate_half(x: Tensor) -> Tensor:
    """Return (-b, a) for the halves (a, b) of the last dimension, as rotary embeddings need it."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)
