"""PruneSID's groups of tokens, what is redundant in each, and the shares of a budget among them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniprune.pruning.functional import cosine_similarity, top_k

Ints = NDArray[np.int64]
PLAIN, DENSE, SORTED = 32, 18, 150
"""As released: budget / 32 means (LLaVA), 18 per share kept (Qwen2-VL, in raster order above 150 tokens)."""


def components(features: Tensor, count: int) -> Tensor:
    """[N, count] sizes of each token's loadings on the leading principal components of `features` [N, C], in float64.

    Components are those of the tokens as variables: sigmoids of features, each token centred over its channels.
    O(N^2 C + N^3), or O(N C^2 + C^3) where features are fewer than tokens.
    """
    x = features.double().sigmoid()
    x = x - x.mean(1, keepdim=True)
    if x.shape[1] < max(len(x), count) and count <= x.shape[1]:
        found: Tensor = x @ torch.linalg.eigh(x.mT @ x).eigenvectors[:, -count:].flip(1)
        return torch.nn.functional.normalize(found, dim=0).abs()
    vectors: Tensor = torch.linalg.eigh(x @ x.mT).eigenvectors
    return vectors[:, -count:].flip(1).abs()


def redundant(features: Tensor, keep: int, qwen: bool) -> Tensor:
    """[N, N] True where cosines are above a multiple of their mean over pairs; of Qwen2-VL, of half that, as released.

    Its triangle has the diagonal and is divided by all N^2.
    """
    similarity, count = cosine_similarity(features), len(features)
    if qwen:
        return similarity > similarity.triu().sum() / count**2 * max(DENSE * keep / count, 1)
    return similarity > similarity.triu(1).sum() / max(1, count * (count - 1) // 2) * (keep / PLAIN)


def essential(features: Tensor, scores: Tensor, group: Tensor, keep: int, spare: int, qwen: bool) -> Tensor:
    """Return the indices [keep - spare] of the kept tokens, `group` [N] after group; waits for a GPU once.

    In each group the one with the best of `scores` [N] stays and those like it go, again and again; a
    group's share of the budget, of which other tokens take `spare` places, is its share of those that stay.
    """
    ranked = top_k(scores, len(scores))
    own = group[ranked]
    pairs = (redundant(features, keep, qwen)[ranked][:, ranked] & (own == own[:, None])).cpu().numpy()
    dead, groups = np.zeros(len(pairs), bool), own.cpu().numpy()
    for place, row in enumerate(pairs):
        if not dead[place]:
            dead[place + 1 :] |= row[place + 1 :]
    order, sizes = np.lexsort((dead, groups)), np.bincount(groups)
    counts = shared_out(sizes, np.bincount(groups[~dead], minlength=len(sizes)), keep, spare)
    within = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = order[within < np.repeat(counts, sizes)][: keep - spare]
    picks = ranked[torch.from_numpy(places).to(ranked.device)]
    return picks.sort().values if qwen and keep > SORTED else picks


def shared_out(sizes: Ints, picks: Ints, keep: int, spare: int) -> Ints:
    """Return how many tokens each group keeps: at least one if it has any, then by its share of `picks` [G].

    Shares are rounded as running sums in float32, as released; what groups cannot take goes to those of most picks.
    """
    low, high = np.minimum(sizes, 1), np.minimum(np.minimum(sizes, picks), 5 * -(-keep // 64))
    while high.sum() < keep:
        high = np.minimum(high + 1, sizes)
    rest = max(0, keep - int(low.sum()) - spare)
    running = np.cumsum(np.float32(picks) / np.float32(picks.sum()), dtype=np.float64).astype(np.float32)
    counts: Ints = np.minimum(low + np.diff(np.rint(running * np.float32(rest)).astype(np.int64), prepend=0), high)
    missing = rest + int(low.sum()) - int(counts.sum())
    for number in np.argsort(-picks, kind="stable"):
        more = min(int(high[number] - counts[number]), missing)
        counts[number] += more
        missing -= more
    return counts
