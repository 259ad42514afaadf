"""Kernels of CDPruner as OpenVINO GenAI builds them, for blocks of tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from uniprune.pruning.functional import gram
from uniprune.pruning.greedy import dpp_map

from .cdpruner import STEP, conditional_kernel, unit_range

Kernel = Literal["blend", "exponential"]


def in_blocks(units: Tensor, relevance: Tensor, keep: int, split: int, kernel: Kernel, weight: float) -> Tensor:
    """[..., keep] greedy picks of unit vectors [..., N, D], half of them in either half of more than `split` tokens.

    Args:
        units: the tokens.
        relevance: [..., N] of each, of any range: scaled to 0 … 1 in each half.
        keep: picks in all.
        split: most tokens of one block; 0 for any number.
        kernel: see `weighted`.
        weight: see `weighted`.
    """
    if not 0 < split < (count := units.shape[-2]):
        return dpp_map(weighted(units, relevance, kernel, weight), keep)
    cut, some = count // 2, keep // 2
    first = in_blocks(units[..., :cut, :], relevance[..., :cut], some, 0, kernel, weight)
    return torch.cat(
        (first, in_blocks(units[..., cut:, :], relevance[..., cut:], keep - some, 0, kernel, weight) + cut), -1
    )


def weighted(units: Tensor, relevance: Tensor, kernel: Kernel, weight: float) -> Tensor:
    """[..., N, N] cosines of unit vectors [..., N, D], weighted by `relevance` [..., N].

    Args:
        units: the tokens.
        relevance: of each.
        kernel: "blend": the product of both tokens' relevance by `weight`, and 1 by the rest; "exponential": the
            exponential of their sum times `weight` / (2 - 2 `weight`), at weight 1 their product.
        weight: see `kernel`.
    """
    if kernel == "exponential" and weight == 1:
        return conditional_kernel(units, unit_range(relevance))
    above = relevance - relevance.amin(-1, True)
    scaled = above / (above.amax(-1, True) + (STEP if kernel == "blend" else torch.finfo(above.dtype).tiny))
    if kernel == "exponential":
        return conditional_kernel(units, (scaled * (weight / (2 - 2 * weight))).exp())
    return gram(units).mul_(weight * scaled[..., None] * scaled[..., None, :] + (1 - weight))
