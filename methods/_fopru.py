"""Significance of FoPru's tokens, and of rows of them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from uniprune.pruning.budget import keep_count
from uniprune.pruning.functional import group_means, on_cpu, top_k
from uniprune.pruning.view import Grid

Significance = Literal["high-variance", "low-variance"]


def significance(exchanged: Tensor, choice: Significance) -> Tensor:
    """The direction of `exchanged` [..., 2, N] that varies more, or less, [..., N]; the received one if they are equal.

    On a CPU prompt by prompt: a variance's last bit depends on how many are computed.
    """
    if exchanged.dim() > 2 and on_cpu(exchanged):
        return torch.stack([significance(one, choice) for one in exchanged])
    emitted, received = exchanged.unbind(-2)
    emits, receives = emitted.var(-1, correction=0), received.var(-1, correction=0)
    emission = emits > receives if choice == "high-variance" else emits < receives
    return torch.where(emission[..., None], emitted, received)


def best_rows(scores: Tensor, grids: list[Grid], ratio: float) -> Tensor:
    """Indices of all tokens in the rows with the best mean of `scores` [N], best row first, in raster order within."""
    widths = torch.tensor([w for t, h, w in grids for _ in range(t * h)], device=scores.device)
    row = torch.arange(len(widths), device=scores.device).repeat_interleave(widths)
    rank = top_k(group_means(scores[:, None], row, len(widths))[:, 0], len(widths)).argsort()[row]
    return rank.argsort(stable=True)[: int((rank < keep_count(len(widths), ratio)).sum())]
