"""Greedy selection rules: pick after pick, each depending on all before it.

On the CPU, and where Triton is missing, a pick is a few torch operations; a picked index stays a tensor, so that a
device is never waited for. On CUDA devices many picks of all prompts are one kernel (`uniprune.pruning.greedy_triton`)
and equal.
"""

from __future__ import annotations

import warnings
from functools import cache, reduce
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from uniprune.pruning.functional import rows_at_a_time


def farthest_points(distance: Tensor, keep: int, seeds: Tensor | None = None) -> Tensor:
    """Greedy max-min diversity: always take the point whose nearest selected point is farthest away.

    Args:
        distance: [..., N, N] symmetric distances, of one prompt or several.
        keep: points to return in all, seeds included.
        seeds: [..., S] points already selected; without any, the first pick is the one with the farthest nearest
            neighbour.

    Returns:
        [..., keep] distinct indices in picking order. Selected points are masked, so duplicates of them are taken only
        when nothing else is left. O(N) per pick.
    """
    kernels = fused(distance)
    if kernels is None and distance.dim() > 2:
        every = [None] * len(distance) if seeds is None else seeds
        return torch.stack([farthest_points(one, keep, own) for one, own in zip(distance, every, strict=True)])
    pick = kernels.farthest_points if kernels else _farthest_points
    if seeds is None:
        picks: Tensor = pick(distance, nearest_other(distance), keep, fresh=True)
        return picks
    nearest = distance.take_along_dim(seeds[..., None], -2).amin(-2).scatter_(-1, seeds, -torch.inf)
    return torch.cat((seeds[..., :keep], pick(distance, nearest, max(0, keep - seeds.shape[-1]))), dim=-1)


def _farthest_points(distance: Tensor, nearest: Tensor, count: int, fresh: bool = False) -> Tensor:
    """[count] further picks; `nearest` [N] is changed in place. See `greedy_triton.farthest_points`."""
    nearest = nearest[None]  # [1, N] saves reshaping at every pick
    picks = [nearest.new_empty(0, dtype=torch.int64)]
    for step in range(count):
        pick = nearest.argmax(1)
        row = distance.index_select(0, pick)
        nearest = row if fresh and not step else torch.minimum(nearest, row, out=nearest)
        nearest.index_fill_(1, pick, -torch.inf)
        picks.append(pick)
    return torch.cat(picks)


def nearest_other(distance: Tensor) -> Tensor:
    """[..., N] distance of each point to its nearest other, from `distance` [..., N, N]. O(N^2), a few rows copied."""
    step, parts = rows_at_a_time(distance), []
    for start in range(0, distance.shape[-1], step):
        rows = distance[..., start : start + step, :].clone()
        rows.diagonal(start, -2, -1).fill_(torch.inf)
        parts.append(rows.amin(-2))
    return reduce(torch.minimum, parts)


def dpp_map(kernel: Tensor, keep: int) -> Tensor:
    """Greedy MAP of a determinantal point process: always add the token that enlarges the determinant most.

    Args:
        kernel: [..., N, N] symmetric and positive semi-definite, of one prompt or several.
        keep: tokens to return, at most N.

    Returns:
        [..., keep] distinct indices in picking order. O(N keep^2), by the incremental Cholesky form (arXiv 1709.05135).
        Past the kernel's numerical rank nothing is left to gain: the rest is taken by its rounding noise, still
        distinct.
    """
    kernels = fused(kernel)
    if kernels is None and kernel.dim() > 2:
        return torch.stack([dpp_map(one, keep) for one in kernel])
    gain = kernel.diagonal(dim1=-2, dim2=-1).clone()
    info = torch.finfo(kernel.dtype)
    # Below the floor a row is rounding noise, which would grow from pick to pick if it were scaled up further.
    floor = (gain.amax(-1) * (kernel.shape[-1] * info.eps)).clamp_(min=info.tiny)
    picks: Tensor = (kernels.dpp_map if kernels else _dpp_map)(kernel, gain, floor, keep)
    return picks


def _dpp_map(kernel: Tensor, gain: Tensor, floor: Tensor, count: int) -> Tensor:
    """[count] picks; `gain` [N] is changed in place. See `uniprune.pruning.greedy_triton.dpp_map`."""
    gain, picks = gain[None], [gain.new_empty(0, dtype=torch.int64)]
    factor = kernel.new_empty(count, len(kernel))
    for step in range(count):
        pick = gain.argmax(1)
        row, done = kernel.index_select(0, pick), factor[:step]
        if step:
            row.addmm_(done.index_select(1, pick).T, done, alpha=-1)
        row = torch.div(row, gain.index_select(1, pick).clamp_(min=floor).sqrt_(), out=factor[step : step + 1])
        gain.addcmul_(row, row, value=-1).index_fill_(1, pick, -torch.inf)
        picks.append(pick)
    return torch.cat(picks)


def fused(matrix: Tensor) -> ModuleType | None:
    """Return the module of GPU kernels if they support this matrix [..., N, N], else None.

    They need a CUDA device, Triton (part of torch's CUDA builds), and tokens that one block of threads can hold.
    """
    if not matrix.is_cuda or matrix.stride(-1) != 1 or find_spec("triton") is None:
        return None
    kernels = _proven(matrix.device, matrix.dtype)
    return kernels if kernels and matrix.shape[-1] <= kernels.MOST_TOKENS else None


@cache
def _proven(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """The kernels, if they can be built and make the same picks as the loops; tried once per device.

    This compiles them, so later calls are timed without it. A machine may lack what Triton compiles with; a wrong pick
    would be worse, and neither may end a run.
    """
    try:
        from uniprune.pruning import greedy_triton as kernels

        wrong = kernels.disagreement(_farthest_points, _dpp_map, device, dtype)
    except Exception as error:  # Triton raises whatever its compilers do
        wrong = f"{type(error).__name__}: {error}".splitlines()[0]
    if wrong:
        warnings.warn(
            f"greedy selections run pick by pick on {device}, slower but right: their Triton kernels failed ({wrong})",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernels
