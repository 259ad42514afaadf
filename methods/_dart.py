"""Pivots and quotas of DART."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.pruning.functional import at_least_float32, cosine_similarity, rows_of, top_k, true_places


def largest_keys(keys: Tensor, count: int, absent: Tensor | None = None) -> Tensor:
    """[..., count] indices of the keys [..., N, C] with the largest L1 norm, or all N in that order.

    Those `absent` [..., N] come last.
    """
    norms = at_least_float32(keys).abs().sum(-1)
    return top_k(norms if absent is None else norms.masked_fill(absent, -1), count)


def padded(parts: Sequence[Tensor], value: float = 0) -> Tensor:
    """[P, F, ...] P tensors [F, ...], the shorter ones filled up with `value`."""
    if len(set(map(len, parts))) == 1:
        return torch.stack(list(parts))
    return pad_sequence(list(parts), batch_first=True, padding_value=value)


def with_pivots(tokens: Tensor, visual: Tensor, text: Tensor, keep: int) -> Tensor:
    """[..., keep] indices: the pivots `visual` [..., V] of `tokens` [..., N, D], and what is least like these."""
    pivots = torch.cat([rows_of(tokens, visual), text], dim=-2)
    return least_similar(tokens, pivots, visual, quotas(keep - visual.shape[-1], pivots.shape[-2]))


def quotas(tokens: int, pivots: int) -> list[int]:
    """Tokens each pivot may add: `tokens` in all, spread evenly, the first ones taking one more."""
    each, more = divmod(tokens, pivots)
    return [each + (pivot < more) for pivot in range(pivots)]


def span_quotas(sizes: Sequence[int], keep: int, ratio: float | None) -> list[int]:
    """Tokens that spans of these sizes keep: `keep` in all, or of each a share rounded up in float32, at least one."""
    if ratio is None:
        ends = [keep * done // sum(sizes) for done in accumulate(sizes, initial=0)]
        return [after - before for before, after in pairwise(ends)]
    share = 1 - torch.tensor(1 - ratio, dtype=torch.float32)
    return [max(1, min(size, int((size * share).ceil()))) for size in sizes]


def least_similar(tokens: Tensor, pivots: Tensor, visual: Tensor, quotas: list[int]) -> Tensor:
    """Ascending indices of the visual pivots and, for each pivot in turn, of the tokens left that are least like it.

    `tokens` is [..., N, D]; `pivots` [..., P, D] act in their order, `visual` [..., V] indexes those that are visual
    tokens; `quotas` are the tokens that each of the P adds, fewer when none remain.
    """
    similarity, every = cosine_similarity(pivots, tokens), tokens.shape[-2]
    free, least = every, visual
    for pivot, quota in enumerate(quotas):
        similarity.scatter_(-1, least[..., None, :].expand(*similarity.shape[:-1], -1), torch.inf)  # taken
        free -= least.shape[-1]
        least = similarity[..., pivot, :].argsort(stable=True)[..., : min(quota, free)]
    taken = similarity[..., 0, :].scatter_(-1, least, torch.inf).isposinf()
    return true_places(taken, every - free + least.shape[-1])
