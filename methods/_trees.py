"""Trees of tokens that are alike from frame to frame."""

from __future__ import annotations

import torch
from torch import Tensor

from uniprune.pruning.functional import cosine_similarity, group_means


def links(x: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """[L - 1, N] likeness to the most similar `free` [L, N] token of the frame before, and its place in that frame.

    A token that is not free has likeness -inf.
    """
    every = [cosine_similarity(now, before) for now, before in zip(x[1:], x[:-1], strict=True)]
    cosines = torch.stack(every).masked_fill(~free[:-1, None] | ~free[1:, :, None], -torch.inf)
    best: tuple[Tensor, Tensor] = cosines.max(-1)
    return best


def trees(x: Tensor, free: Tensor, threshold: float, dropped: int, *, by_links: bool) -> tuple[Tensor, Tensor]:
    """Merge tokens of a segment into those of the frame before that they are alike.

    Args:
        x: [L, N, D] tokens.
        free: [L, N] whether a token may merge.
        threshold: likeness above which it does; raised where more than `dropped` would.
        dropped: how many tokens may merge away.
        by_links: whether a tree's sum is divided by its root's own links and one, not by its tokens.

    Returns:
        [L, N] tokens that are left, and [L, N, D] the means of their trees.
    """
    (steps, size), (alike, parent) = x.shape[:2], links(x, free)
    merged = alike > threshold
    if int(merged.sum()) > dropped:
        merged = alike > (alike.flatten().sort(descending=True).values[dropped - 1] if dropped else torch.inf)
    root = torch.arange(steps * size, device=x.device).view(steps, size)
    for step in range(1, steps):
        root[step] = torch.where(merged[step - 1], root[step - 1, parent[step - 1]], root[step])
    means = group_means(x.flatten(0, 1), root.flatten(), steps * size)
    if by_links:
        above = (parent + torch.arange(steps - 1, device=x.device)[:, None] * size)[merged]
        of_tree = root.flatten().bincount(minlength=steps * size)
        means = means * (of_tree / (1 + above.bincount(minlength=steps * size)))[:, None].to(x)
    left = free.clone()
    left[1:] &= ~merged
    return left, means.view_as(x)
