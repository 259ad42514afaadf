"""Pairs of tokens that attend to each other in each decoder layer, which its FLOPs follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from uniprune.engine.kept_tokens import KeptTokens
from uniprune.engine.token_map import PrefillInputs
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.context import LINEAR, SLIDING


@dataclass(frozen=True)
class AttendedPairs:
    """Counts the pairs of tokens that attend to each other; holds nothing of the model.

    Attributes:
        kinds: the kind of every layer.
        window: positions that windowed layers see, None without such layers.
        block_kinds: see `ModelAdapter`.
        blocks: [B, L] block of every position of the un-pruned prompts, None without any.
        last_only: layers that run on the last token only.
    """

    kinds: tuple[str, ...]
    window: int | None
    block_kinds: frozenset[str]
    blocks: Tensor | None
    last_only: range

    @classmethod
    def of(cls, adapter: ModelAdapter, inputs: PrefillInputs) -> Self:
        """Return the counter of a prefill."""
        two_way = adapter.block_kinds and inputs.has_visual
        blocks = adapter.blocks(inputs.tokens.visual) if two_way else None
        return cls(adapter.kinds, adapter.window, adapter.block_kinds, blocks, adapter.reusing)

    def count(self, layer: int, kept: KeptTokens, row: int) -> float:
        """Return the pairs among the kept tokens of a row; a token counts half with itself, so n of them are n * n / 2.

        Layers of linear attention have none.
        """
        kind, number = self.kinds[layer], kept.lengths[row]
        if kind == LINEAR:
            return 0.0
        pairs, index = number * number / 2, kept.index[row, kept.valid[row]]
        if layer in self.last_only:
            window = self.window if kind == SLIDING and self.window is not None else 1 + int(index[-1])
            return float((index > index[-1] - window).sum())
        if kind == SLIDING and self.window is not None:
            pairs -= int(np.searchsorted(index, index - self.window, side="right").sum())  # those before the window
        if self.blocks is not None and kind in self.block_kinds:
            blocks = self.blocks[row].numpy()[index]
            _, sizes = np.unique(blocks[blocks >= 0], return_counts=True)
            pairs += int((sizes * (sizes - 1) // 2).sum())
        return pairs
