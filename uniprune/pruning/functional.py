"""Selection rules that several methods share. All break ties towards the lowest index and score in float32 or wider.

Where shapes begin with dots, dimensions in front are prompts that are decided together: on a GPU by the same operations
as one. On a CPU matrix products are made prompt by prompt, so that none of a prompt's bits depends on the others; the
products of a GPU may differ in the last bit, as the features of a batch do there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.errors import PruningError
from uniprune.utils.kernels import proven

ROWS = 128
"""Rows of a pairwise matrix worked on at a time on a CPU: they stay in the processor's cache."""

GPU_ROWS = 4096
"""The same on a GPU, where starting an operation costs more than fetching its data."""

MOST_RANKED = 2**14
"""Values from which on a GPU sorts them, and does not compare all pairs."""

MOST_PLACES = 2**17
"""Groups times rows from which on a GPU sorts the rows by group, and does not look for each group in all of them."""

LEAST_NORM = 1e-12
"""Norm below which a vector counts as this long, as in `F.normalize`, so that zero vectors have cosine 0."""


def on_cpu(x: Tensor) -> bool:
    """Check whether `x` is where reading a value does not wait and several prompts take as long as one by one."""
    return x.device.type == "cpu"


def fused(x: Tensor) -> ModuleType | None:
    """Return the module of GPU kernels if they take values like `x` [..., N] or [..., N, C], else None.

    They need a CUDA device and Triton, which is part of torch's CUDA builds.
    """
    if not x.is_cuda or not 0 < x.numel() < 2**31 or find_spec("triton") is None or not _proven(x.device):
        return None
    from uniprune.pruning import rules_triton

    return rules_triton


@cache
def _proven(device: torch.device) -> bool:
    """Check whether the kernels choose what torch does; tried once, so that timed calls are not."""

    def check() -> str:
        from uniprune.pruning import rules_triton

        return rules_triton.disagreement(_top_k, _group_means, device)

    return proven(f"rules of selection run on {device}", "as several operations each", check)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or float64 when it already is: half precision loses half the picks of a greedy rule."""
    return x if x.dtype == torch.float64 else x.float()


def top_k(scores: Tensor, keep: int) -> Tensor:
    """[..., keep] indices of the largest of `scores` [..., N], best first; equal scores in index order. O(N log N).

    NaN has no rank. On a GPU, where raising an error would have to wait for the scores, all indices of the prompt are
    then -N - 1: the engine refuses them when it reads the selection.

    Raises:
        PruningError: a score is NaN, on a CPU.
    """
    kernels = fused(scores) if scores.shape[-1] <= MOST_RANKED else None
    return _top_k(scores, keep) if kernels is None else kernels.ranked(scores, keep)


def _top_k(scores: Tensor, keep: int) -> Tensor:
    """[..., keep] of the same, by operations of torch."""
    values, order = scores.sort(descending=True, stable=True)
    unknown, best = values[..., :1].isnan(), order[..., :keep]  # NaN is sorted to the front
    if not on_cpu(scores):
        return best.masked_fill_(unknown, -scores.shape[-1] - 1)
    if unknown.any():
        count = int(scores.isnan().sum())
        raise PruningError(f"{count} of {scores.numel()} scores are NaN, so there is no ranking")
    return best


def count_outliers(scores: Tensor) -> int:
    """Count `scores` [N] above Tukey's fence Q3 + 1.5 (Q3 - Q1), quartiles interpolated. O(N log N)."""
    low, high = scores.quantile(torch.tensor([0.25, 0.75]).to(scores))
    return int((scores > high + 1.5 * (high - low)).sum())


def random_subset(tokens: int, keep: int, generator: torch.Generator) -> Tensor:
    """[keep] of `tokens` indices, uniform without replacement, in drawing order, on the generator's device. O(N)."""
    return torch.randperm(tokens, generator=generator, device=generator.device)[:keep]


def random_subsets(tokens: int, keep: int, generators: Sequence[torch.Generator]) -> Tensor:
    """[P, keep], a `random_subset` by each of P generators of one device."""
    return torch.stack([torch.randperm(tokens, generator=one, device=one.device) for one in generators])[:, :keep]


def complement(tokens: int, taken: Tensor) -> Tensor:
    """[..., tokens - T] indices that are not in `taken` [..., T] (unique), ascending. O(tokens)."""
    free = torch.ones(*taken.shape[:-1], tokens, dtype=torch.bool, device=taken.device)
    return true_places(free.scatter_(-1, taken, False), tokens - taken.shape[-1])


def true_places(mask: Tensor, count: int) -> Tensor:
    """[..., count] indices of what is true in `mask` [..., N], ascending, of which every row has `count`. O(N).

    On a GPU they are sorted instead of searched for: the size of a search's result would have to be waited for.
    """
    if on_cpu(mask):
        found = mask.nonzero()[:, -1]
        return found if mask.dim() == 1 else found.view(*mask.shape[:-1], count)
    values, kernels = mask.view(torch.uint8), fused(mask) if mask.shape[-1] <= MOST_RANKED else None
    if kernels is None:
        return values.argsort(descending=True, stable=True)[..., :count]
    places: Tensor = kernels.ranked(values, count)
    return places


def cosine_similarity(a: Tensor, b: Tensor | None = None) -> Tensor:
    """[..., N, M] cosines of `a` [..., N, D] and `b` [..., M, D], or of `a` and itself; of zero vectors 0. O(N M D)."""
    left = unit_vectors(a)
    if b is None:
        return gram(left)
    return _cosines(left, at_least_float32(b))


def unit_vectors(x: Tensor) -> Tensor:
    """`x` [..., N, D] in float32 or wider, its rows of length 1; zero vectors stay."""
    return F.normalize(at_least_float32(x), dim=-1)


def _cosines(unit: Tensor, other: Tensor) -> Tensor:
    """[..., N, M] cosines of unit vectors [..., N, D] with others [..., M, D]."""
    return products(unit, other).mul_(inverse_norms(other)[..., None, :])


def relevance(tokens: Tensor, text: Tensor | Sequence[Tensor], reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """[..., N] cosines of `tokens` [..., N, D] with vectors `text` [M, D], of which every prompt has its own, reduced.

    Args:
        tokens: of one prompt or several.
        text: of one prompt, or a sequence with those of each.
        reduce: as `torch.mean` or `torch.amax`, over the vectors. O(N M D).
    """
    return relevance_of_units(unit_vectors(tokens), text, reduce)


def relevance_of_units(
    units: Tensor, text: Tensor | Sequence[Tensor], reduce: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """[..., N] `relevance` of tokens whose `unit_vectors` are given."""
    if isinstance(text, Tensor):
        return reduce(_cosines(units, at_least_float32(text)), -1)
    if len(set(map(len, text))) == 1:
        return relevance_of_units(units, torch.stack(list(text)), reduce)
    right = at_least_float32(torch.cat(list(text)))
    parts = [part.split(list(map(len, text))) for part in (right, inverse_norms(right))]
    each = zip(units, *parts, strict=True)
    return torch.stack([reduce((own @ other.T).mul_(factors), -1) for own, other, factors in each])


def products(a: Tensor, b: Tensor) -> Tensor:
    """[..., N, M] inner products of `a` [..., N, D] and `b` [..., M, D]. O(N M D)."""
    if not on_cpu(a) and a.dim() == b.dim() == 3:  # as `@`, which takes six operations for one
        return torch.bmm(a, b.mT)
    if a.dim() == 2 or not on_cpu(a):
        return a @ b.mT
    return torch.stack([products(*one) for one in zip(a, b, strict=True)])


def inverse_norms(x: Tensor) -> Tensor:
    """[..., N] factors that make the rows of `x` [..., N, D] unit vectors, without writing these. O(N D)."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norms.clamp_(min=LEAST_NORM).reciprocal_()


def rows_at_a_time(matrix: Tensor) -> int:
    """Return how many rows of `matrix` to work on at a time, by its device."""
    return ROWS if on_cpu(matrix) else GPU_ROWS


def gram(x: Tensor) -> Tensor:
    """[..., N, N] x @ x.mT, exactly symmetric; on a CPU for little more than half its cost, as one half is copied."""
    if not on_cpu(x):
        product = products(x, x)
        return torch.maximum(product, product.mT)
    product = x.new_empty(*x.shape[:-1], x.shape[-2])
    for one, whole in zip(x.flatten(0, -3), product.flatten(0, -3), strict=True) if x.dim() > 2 else ((x, product),):
        for start in range(0, len(one), ROWS):
            stop = start + ROWS
            torch.mm(one[start:stop], one[start:].T, out=whole[start:stop, start:])
            whole[stop:, start:stop] = whole[start:stop, stop:].T
            block = whole[start:stop, start:stop]
            block.copy_(torch.maximum(block, block.T))
    return product


def cosine_distance(tokens: Tensor) -> Tensor:
    """[..., N, N] pairwise 1 - cos of `tokens` [..., N, D]; a zero vector is at distance 1 from all. O(N^2 D)."""
    # In place: at thousands of tokens, fetching fresh memory costs as much as the arithmetic.
    return cosine_similarity(tokens).neg_().add_(1)


def rows_of(x: Tensor, indices: Tensor) -> Tensor:
    """[..., k, C] rows `indices` [..., k] of `x` [..., N, C], which may share those in front. O(k C)."""
    if indices.dim() == 1:
        return x[indices]
    if on_cpu(x):  # where gathering number by number takes several times as long
        return torch.stack([rows_of(*one) for one in zip(x, indices, strict=True)])
    return x.gather(-2, indices[..., None].expand(*indices.shape, x.shape[-1]))


def weighted_sums(features: Tensor, members: Tensor, weights: Tensor) -> Tensor:
    """[..., G, C] sums of weights[i] x features[i] over the `members` [..., G, M] of every group, of [..., N] tokens.

    O(G M C), nothing gathered.
    """
    if members.dim() > 2:
        own = _of_all(members, features.shape[-2]).flatten(0, -2)
        every = weighted_sums(features.flatten(0, -2), own, weights.flatten())
        return every.view(*members.shape[:-1], features.shape[-1])
    groups, size = members.shape
    ends, members = torch.arange(groups + 1, device=members.device) * size, members.flatten()
    chosen = weights.to(features)[members]
    return F.embedding_bag(members, features, ends, mode="sum", per_sample_weights=chosen, include_last_offset=True)


def largest_in_rows(values: Tensor, count: int) -> Tensor:
    """[..., count] columns of the largest of each row of `values` [..., N], ascending; of equal ones the first. O(A N).

    NaN counts as the smallest.
    """
    if not count:
        return values.new_empty(*values.shape[:-1], 0, dtype=torch.long)
    values = values.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    if not on_cpu(values):  # a sort costs more work than the rest, and starts ten operations fewer
        return values.argsort(descending=True, stable=True)[..., :count].sort().values
    least = values.topk(count).values[..., -1:]
    above, equal = values > least, values == least
    chosen = above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return true_places(chosen, count)


def group_means(features: Tensor, group: Tensor, count: int, rows: Tensor | None = None) -> Tensor:
    """[..., count, C] mean of the rows of `features` [..., N, C] in each group 0..count-1, 0 for an empty one.

    `group` is [..., N], or [..., M] of the `rows` [..., M] only. O(N C): rows of one group are summed in their order,
    not scattered, which is not deterministic on GPUs.
    """
    kernels = fused(features) if count * group.shape[-1] <= MOST_PLACES else None
    if kernels is None:
        return _group_means(features, group, count, rows)
    means: Tensor = kernels.group_means(features if rows is None else rows_of(features, rows), group, count)
    return means


def _group_means(features: Tensor, group: Tensor, count: int, rows: Tensor | None = None) -> Tensor:
    """[..., count, C] of the same, by operations of torch."""
    if group.dim() > 1:
        prompts, own = len(group), None if rows is None else _of_all(rows, features.shape[-2]).flatten()
        means = _group_means(features.flatten(0, -2), _of_all(group, count).flatten(), prompts * count, own)
        return means.view(prompts, count, features.shape[-1])
    ordered, members = group.sort(stable=True)
    members = members if rows is None else rows[members]
    ends = torch.searchsorted(ordered, torch.arange(count + 1, device=group.device))
    sums = F.embedding_bag(members, features, ends, mode="sum", include_last_offset=True)
    return sums / ends.diff().clamp_(min=1)[:, None]


def _of_all(indices: Tensor, size: int) -> Tensor:
    """Indices [P, ...] into `size` rows of each prompt, as indices into the rows of all."""
    first = torch.arange(0, len(indices) * size, size, device=indices.device)
    return indices + first.view(-1, *[1] * (indices.dim() - 1))


def rotate_half(x: Tensor) -> Tensor:
    """Return (-b, a) for the halves (a, b) of the last dimension, as rotary embeddings need it."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)
