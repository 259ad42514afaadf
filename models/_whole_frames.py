"""Relatives of Qwen2.5-VL whose tower attends to whole frames in every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.modeling.adapter import TextAfter
from uniprune.modeling.tiny import IMAGE, IMAGE_END, IMAGE_START, VIDEO, VISION
from uniprune.pruning.view import Grid

from .qwen2_5_vl import Qwen2_5_VL

HALVES = ((0.5,) * 3, (0.5,) * 3)
"""Mean and standard deviation of the pixels of processors that scale them to -1 ... 1."""


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

    def whole_image_blocks(self) -> Sequence[int]:
        """All."""
        return range(len(self.vision_blocks()))

    def text_after(self) -> Mapping[int, TextAfter]:
        """vLLM prunes no images of most of them."""
        return {}

    def patch_places(self, grids: Sequence[Grid]) -> Tensor:
        """The next `merge` x `merge` places of each token, in raster order."""
        tokens = torch.arange(sum(map(prod, grids)))
        return tokens[:, None] * self.merge**2 + torch.arange(self.merge**2)

    def _raster(self, tokens: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """[N, C] per grid: tokens are in raster order."""
        return list(tokens.split([t * h * w for t, h, w in grids]))


def tiny_fields(text: Mapping[str, Any], **tower: Any) -> dict[str, Any]:
    """Return a configuration of Qwen3-VL's form: a tower of four blocks, with further fields `tower`, and `text`."""
    vision = {
        **VISION,
        "depth": 4,
        "num_heads": 4,
        "patch_size": 16,
        "out_hidden_size": text["hidden_size"],
        "num_position_embeddings": 256,
        **tower,
    }
    return {
        "vision_config": vision,
        "text_config": {"head_dim": 16, **text},
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": IMAGE_START,
        "vision_end_token_id": IMAGE_END,
        "tie_word_embeddings": False,
    }
