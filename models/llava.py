"""LLaVA-1.5: a CLIP tower whose patches are projected one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from uniprune.family import PatchGridFamily
from uniprune.registry import register_model


@register_model("llava")
class Llava(PatchGridFamily):
    """LLaVA-1.5 (arXiv 2310.03744): CLIP ViT with CLS, token-wise MLP, 576 tokens per 336 px image."""

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the CLIP (or SigLIP) encoder."""
        return self.vision.encoder.layers  # type: ignore[union-attr, return-value]

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `self_attn`."""
        return block.self_attn
