"""VidCom2's rules: likeness to means on the channels that vary least, and the tokens of each frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.pruning.functional import top_k

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)
SHARPNESS = 100  # one over the temperature 0.01


def steady(x: Tensor) -> Tensor:
    """[T, F, D // 2] unit vectors of the channels of `x` [T, F, D] that vary least over all tokens."""
    channels = top_k(-x.flatten(0, 1).var(0, correction=0), x.shape[-1] // 2)
    return F.normalize(x[..., channels], dim=-1)


def likeness(x: Tensor, centre: Tensor) -> Tensor:
    """[T, F] sum of Gaussian kernels of `x` [T, F, C] and `centre`, one for each of `WIDTHS`."""
    squared = (x - centre).square().sum(-1)
    return torch.stack([torch.exp(-squared / (2 * width)) for width in WIDTHS]).sum(0)


def frame_counts(unlike: Tensor, size: int, ratio: float) -> Tensor:
    """[T] tokens of each frame of `size`, at least one, more where `unlike` [T] is large; halves to even.

    A count may be above `size`: then the frame is taken whole, and the rest is not handed on.
    """
    share = F.softmax((unlike - unlike.max()) * SHARPNESS, dim=0)
    return (ratio * (1 + share - share.mean())).mul(size).round().clamp(min=1)
