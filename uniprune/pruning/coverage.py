"""Greedy coverage: pick after pick, the candidate that adds most to what the chosen ones cover."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.pruning.functional import on_cpu, rows_of


def most_covering(covers: Tensor, keep: int, factor: Tensor | float = 1, bonus: Tensor | float = 0) -> Tensor:
    """Greedy facility location: always take the candidate with the largest `factor` x gain + `bonus`.

    An element is covered as well as by the best chosen candidate, at least 0; a gain is the sum, over elements, of what
    a candidate would add to that.

    Args:
        covers: [..., N, R] how well each candidate covers each element.
        keep: candidates to return, at most N.
        factor: [..., N], at least 0.
        bonus: [..., N].

    Returns:
        [..., keep] distinct indices in picking order, of equal scores the lowest. O(N R) per pick; a device is not
        waited for.
    """
    covered, added = covers.new_zeros(*covers.shape[:-2], 1, covers.shape[-1]), torch.empty_like(covers)
    chosen = covers.new_zeros(covers.shape[:-1]) + bonus
    # On a GPU the order of additions depends on the number of prompts, so they are made in float64.
    wide = covers.dtype if on_cpu(covers) else torch.float64
    picks = [torch.empty(*covers.shape[:-2], 0, dtype=torch.int64, device=covers.device)]
    for _ in range(keep):
        gain = torch.sub(covers, covered, out=added).clamp_(min=0).sum(-1, dtype=wide).to(covers)
        pick = (gain * factor + chosen).argmax(-1, keepdim=True)
        covered = torch.maximum(covered, rows_of(covers, pick))
        chosen.scatter_(-1, pick, -torch.inf)
        picks.append(pick)
    return torch.cat(picks, dim=-1)


def each_most_covering(covers: Sequence[Tensor], keep: int) -> Tensor:
    """[P, keep] `most_covering` of P prompts, whose covers [N, R] may differ in R: what nothing covers adds 0."""
    if on_cpu(covers[0]):
        return torch.stack([most_covering(own, keep) for own in covers])
    return most_covering(pad_sequence([own.T for own in covers], batch_first=True).mT.contiguous(), keep)
