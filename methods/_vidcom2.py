"""VidCom2's rules: likeness to means on the channels that vary least, and the tokens of each frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.pruning.functional import on_cpu, top_k

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)
SHARPNESS = 100  # one over the temperature 0.01


def steady(x: Tensor) -> Tensor:
    """[..., T, F, D // 2] unit vectors of the channels of `x` [..., T, F, D] that vary least over all tokens."""
    if x.dim() > 3 and on_cpu(x):  # one by one: a variance's last bit depends on how many are computed
        return torch.stack([steady(one) for one in x])
    channels = top_k(-x.flatten(-3, -2).var(-2, correction=0), x.shape[-1] // 2)
    return F.normalize(x.gather(-1, channels[..., None, None, :].expand(*x.shape[:-1], -1)), dim=-1)


def typicality(x: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """[..., T, F] how typical the tokens `x` [..., T, F, C] are of video and frame; [..., T] counts of the frames."""
    to_video = likeness(x, x.mean((-3, -2), keepdim=True))
    counts = frame_counts(-to_video.mean(-1), x.shape[-2], ratio)
    return to_video + likeness(x, x.mean(-2, keepdim=True)), counts


def likeness(x: Tensor, centre: Tensor) -> Tensor:
    """[..., T, F] sum of Gaussian kernels of `x` [..., T, F, C] and `centre`, one for each of `WIDTHS`."""
    squared = (x - centre).square().sum(-1)
    return torch.stack([torch.exp(-squared / (2 * width)) for width in WIDTHS]).sum(0)


def frame_counts(unlike: Tensor, size: int, ratio: float) -> Tensor:
    """[..., T] tokens of each frame of `size`, at least one, more where `unlike` [..., T] is large; halves to even.

    A count may be above `size`: then the frame is taken whole, and the rest is not handed on.
    """
    share = F.softmax((unlike - unlike.amax(-1, keepdim=True)) * SHARPNESS, dim=-1)
    return (ratio * (1 + share - share.mean(-1, keepdim=True))).mul(size).round().clamp(min=1)


def least_typical(typical: Tensor, counts: Tensor, keep: int | None) -> Tensor:
    """[..., keep] least `typical` [..., T, F] tokens: `counts` [..., T] of each frame, then by typicality over all.

    With None, as many as the counts give, of one video.
    """
    rank = top_k(-typical, typical.shape[-1]).argsort(-1)
    taken = (rank < counts[..., None]).flatten(-2)
    if keep is None:
        return taken.nonzero()[:, 0]
    order = top_k(-typical.flatten(-2), taken.shape[-1])
    return order.gather(-1, taken.gather(-1, order).byte().argsort(descending=True, stable=True)[..., :keep])
