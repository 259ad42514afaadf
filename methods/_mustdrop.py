"""MustDrop's rules: windows of similar patches merge, and tokens without attention from the text do not pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.pruning.base import PreLLM, Selection
from uniprune.pruning.fields import Cosine, Count, Share
from uniprune.pruning.functional import at_least_float32, top_k
from uniprune.pruning.view import View

from ._windows import all_windows, likeness, merged, middle

TOKENS = 576  # for which thresholds are given: ratio -> on summed and on largest attention, as released
PUBLISHED = {1 / 9: [0.011, 0.01], 2 / 9: [0.0012, 0.001], 1 / 3: [0.001, 0.001], 1.0: [0.0, 0.0]}
RELEASES = {
    "test_releases_llm.test_thresholds_of_mustdrop_are_those_of_one_image_size": "Its thresholds are shares of all "
    "attention for 576 tokens: of more than 1000 equally attended ones it drops all; here they scale with the image.",
}
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
        """Untouched tokens and window centres, which become means. A device is waited for once: how many stay."""
        windows = all_windows(view.grids, self.window, view.tokens.device)
        similar = likeness(view.vision.hidden(1), windows) >= self.similarity
        tokens = merged(at_least_float32(view.tokens), windows, similar)
        importance = merged(view.vision.importance(-1)[:, None], windows, similar)[:, 0]
        stays = torch.ones(len(tokens), dtype=torch.bool, device=windows.device)
        stays = stays.index_put((windows,), ~similar[:, None]).index_fill_(0, middle(windows), True)
        kept = stays.nonzero()[:, 0]
        keys = kept[top_k(importance[kept], math.ceil(self.key_share * len(kept)))]
        view.scratch[KEYS] = view.cells[keys]
        return Selection(kept, tokens[kept])


def passes(attention: Tensor, total: float, largest: float) -> Tensor:
    """[N] False where attention [T, N] is low both in sum, as a share of everything, and in its largest entry."""
    sums = attention.sum(0)
    return ~((sums < total * sums.sum()) & (attention.amax(0) < largest))
