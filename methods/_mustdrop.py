"""MustDrop's rules: windows of similar patches merge, and tokens without attention from the text do not pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.fields import Cosine, Count, Share
from uniprune.pruning.functional import at_least_float32, inverse_norms, top_k, weighted_sums
from uniprune.pruning.view import Grid, View

TOKENS = 576  # for which thresholds are given: ratio -> on summed and on largest attention, as released
PUBLISHED = {1 / 9: [0.011, 0.01], 2 / 9: [0.0012, 0.001], 1 / 3: [0.001, 0.001], 1.0: [0.0, 0.0]}
KEYS = "key cells"
"""Entry of `view.scratch` in which `WindowMerge` leaves, for the later stages, the cells that are never dropped."""


@dataclass(frozen=True, kw_only=True)
class WindowMerge(PreLLM):
    """Merges windows of similar patches into their means and notes the tokens with the most vision attention."""

    similarity: Cosine
    window: Count
    key_share: Share

    @property
    def exact(self) -> bool:
        """False: similarity decides."""
        return False

    def select(self, view: View, keep: int) -> Selection:
        """Untouched tokens and window centres, which become means."""
        windows = similar_windows(view.vision.hidden(1), view.grids, self.window, self.similarity)
        centres = windows[:, windows.shape[1] // 2]
        stays = torch.ones(len(view.tokens), dtype=torch.bool, device=windows.device)
        stays[windows.flatten()] = False
        stays[centres] = True
        tokens, importance = at_least_float32(view.tokens).clone(), view.vision.importance(-1).clone()
        tokens[centres], importance[centres] = tokens[windows].mean(1), importance[windows].mean(1)
        kept = stays.nonzero()[:, 0]
        keys = kept[top_k(importance[kept], math.ceil(self.key_share * len(kept)))]
        view.scratch[KEYS] = view.cells[keys]
        return Selection(kept, tokens[kept])


def similar_windows(hidden: Tensor, grids: Sequence[Grid], window: int, similarity: float) -> Tensor:
    """[W, window ** 2] cells of the windows whose mean pairwise cosine is at least `similarity`, most similar first.

    `hidden` is [N, C] in raster order of `grids`. Cells at the edge that fill no window are left alone.
    """
    cells, start = [], 0
    for t, h, w in grids:
        grid = torch.arange(start, start + t * h * w, device=hidden.device).view(t, h, w)
        cut = grid[:, : h // window * window, : w // window * window]
        blocks = cut.reshape(t, h // window, window, w // window, window).transpose(2, 3)
        cells.append(blocks.reshape(-1, window**2))
        start += t * h * w
    windows, x = torch.cat(cells), at_least_float32(hidden)
    # The squared length of a sum of unit vectors is the sum of the cosines of all their pairs.
    total = weighted_sums(x, windows, inverse_norms(x))
    likeness = (total.square_().sum(1) - window**2) / max(1, window**2 * (window**2 - 1))
    order = top_k(likeness, len(likeness))
    return windows[order[likeness[order] >= similarity]]


def passes(attention: Tensor, total: float, largest: float) -> Tensor:
    """[N] False where attention [T, N] is low both in sum, as a share of everything, and in its largest entry."""
    sums = attention.sum(0)
    return ~((sums < total * sums.sum()) & (attention.amax(0) < largest))
