"""Greedy coverage: pick after pick, the candidate that adds most to what the chosen ones cover."""

from __future__ import annotations

import torch
from torch import Tensor


def most_covering(covers: Tensor, keep: int, factor: Tensor | float = 1, bonus: Tensor | float = 0) -> Tensor:
    """Greedy facility location: always take the candidate with the largest `factor` x gain + `bonus`.

    An element is covered as well as by the best chosen candidate, at least 0; a gain is the sum, over elements, of what
    a candidate would add to that.

    Args:
        covers: [N, R] how well each candidate covers each element.
        keep: candidates to return, at most N.
        factor: [N], at least 0.
        bonus: [N].

    Returns:
        [keep] distinct indices in picking order, of equal scores the lowest. O(N R) per pick; a device is not waited
        for.
    """
    covered, added = covers.new_zeros(1, covers.shape[1]), torch.empty_like(covers)
    chosen = covers.new_zeros(len(covers))
    picks = [torch.empty(0, dtype=torch.int64, device=covers.device)]
    for _ in range(keep):
        gain = torch.sub(covers, covered, out=added).clamp_(min=0).sum(1)
        pick = (gain * factor + bonus + chosen).argmax(0, keepdim=True)
        covered = torch.maximum(covered, covers.index_select(0, pick))
        chosen.index_fill_(0, pick, -torch.inf)
        picks.append(pick)
    return torch.cat(picks)
