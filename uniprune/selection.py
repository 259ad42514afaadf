"""Selection rules that several methods share. All break ties towards the lowest index and score in float32 or wider."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or float64 when it already is: half precision loses half the picks of a greedy rule."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def top_k(scores: Tensor, keep: int) -> Tensor:
    """[keep] indices of the largest of `scores` [N], best first; equal scores in index order."""
    return scores.argsort(descending=True, stable=True)[:keep]


def random_subset(tokens: int, keep: int, generator: torch.Generator) -> Tensor:
    """[keep] of `tokens` indices, uniform without replacement, in drawing order, on the generator's device."""
    return torch.randperm(tokens, generator=generator, device=generator.device)[:keep]


def cosine_distance(tokens: Tensor) -> Tensor:
    """[N, N] pairwise 1 - cos of `tokens` [N, D]; a zero vector is at distance 1 from everything."""
    unit = F.normalize(at_least_float32(tokens), dim=-1)
    return 1 - unit @ unit.T


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
        others = distance.clone().fill_diagonal_(torch.inf)
        seeds = others.amin(0).argmax()[None]
    picks = list(seeds[:keep].split(1))
    nearest = distance.index_select(0, seeds).amin(0).index_fill(0, seeds, -torch.inf)
    while len(picks) < keep:
        pick = nearest.argmax()[None]
        nearest = torch.minimum(nearest, distance.index_select(0, pick)[0]).index_fill(0, pick, -torch.inf)
        picks.append(pick)
    return torch.cat(picks)
