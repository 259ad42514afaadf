"""Relatives of Qwen2.5-VL whose tower attends to whole frames in every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.view import Grid

from .qwen2_5_vl import Qwen2_5_VL


class WholeFrames(Qwen2_5_VL):
    """Qwen2.5-VL's layout without windows: patches lie in the order of their tokens."""

    videos: ClassVar[bool] = False

    def attention_spans(self, grid: Grid, block: int) -> list[int]:
        """Whole frames, in every block."""
        t, h, w = grid
        return [h * w * self.merge**2] * t

    def feature_block(self) -> int:
        """The last block."""
        return len(self.vision_blocks()) - 1

    def _raster(self, tokens: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """[N, C] per grid: tokens are in raster order."""
        return list(tokens.split([t * h * w for t, h, w in grids]))
