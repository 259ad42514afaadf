"""Windows of neighbouring patches: their cells, how alike these are, and means in their middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from uniprune.errors import PruningError
from uniprune.pruning.functional import at_least_float32, inverse_norms, on_cpu, weighted_sums
from uniprune.pruning.view import Grid


def merged(x: Tensor, windows: Tensor, similar: Tensor) -> Tensor:
    """[N, C] rows `x`, in the middle of each of `windows` [W, M] its mean if `similar` [W]."""
    centres = middle(windows)
    return x.index_copy(0, centres, x[windows].mean(1).where(similar[:, None], x[centres]))


def middle(windows: Tensor) -> Tensor:
    """[W] cell in the middle of each of `windows` [W, M]."""
    return windows[:, windows.shape[1] // 2]


def similar_windows(hidden: Tensor, grids: Sequence[Grid], window: int, similarity: float) -> Tensor:
    """[W, window ** 2] cells of the windows whose mean pairwise cosine is at least `similarity`, in raster order.

    `hidden` is [N, C] in raster order of `grids`.
    """
    windows = all_windows(grids, window, hidden.device)
    return windows[likeness(hidden, windows) >= similarity]


def all_windows(grids: Sequence[Grid], window: int, device: torch.device) -> Tensor:
    """[W, window ** 2] cells of all windows of `grids`. Cells at the edge that fill no window are left alone."""
    cells, start = [np.zeros((0, window**2), np.int64)], 0
    for t, h, w in grids:  # on the host: the operations on a GPU would take longer than the copy
        grid = np.arange(start, start + t * h * w).reshape(t, h, w)
        cut = grid[:, : h // window * window, : w // window * window]
        blocks = cut.reshape(t, h // window, window, w // window, window).swapaxes(2, 3)
        cells.append(blocks.reshape(-1, window**2))
        start += t * h * w
    return torch.from_numpy(np.concatenate(cells)).to(device, non_blocking=True)


def likeness(hidden: Tensor, windows: Tensor) -> Tensor:
    """[W] mean cosine of the pairs of `hidden` [N, C] in each of `windows` [W, M]; 0 where a window is one cell.

    Raises:
        PruningError: it is NaN somewhere, on a CPU.
    """
    x, size = at_least_float32(hidden), windows.shape[1]
    # The squared length of a sum of unit vectors is the sum of the cosines of all their pairs.
    total = weighted_sums(x, windows, inverse_norms(x)).square_().sum(1)
    mean = (total - size) / max(1, size * (size - 1))
    if on_cpu(mean) and mean.isnan().any():
        raise PruningError(f"{int(mean.isnan().sum())} of {len(mean)} windows of patches have NaN in their features")
    return mean
