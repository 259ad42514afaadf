"""InternVL: 448 px tiles, each a ViT run whose patches are merged two by two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from uniprune.family import PatchGridFamily
from uniprune.registry import register_model


@register_model("internvl")
class InternVL(PatchGridFamily):
    """InternVL3 (arXiv 2504.10479): ViT with CLS, 2x2 pixel shuffle, 256 tokens a tile, several tiles per image."""

    tiled: ClassVar[bool] = True

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.merge = round(1 / model.config.downsample_ratio)

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the InternViT encoder."""
        return self.vision.encoder.layer  # type: ignore[union-attr, return-value]

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `attention`."""
        return block.attention
