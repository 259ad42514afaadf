"""LLaVA-1.5: a CLIP tower whose patches are projected one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniprune.modeling.adapter import PatchGridAdapter
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.tiny import IMAGE, VISION, Size, TinyModel
from uniprune.registry import register_model

from ._prompts import option_letter

PATCH = 14


class TinyLlava(TinyModel):
    """Four CLIP layers on a square grid of patches, each of which is a token."""

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaConfig."""
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

        vision = CLIPVisionConfig(
            **VISION,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=PATCH * self.size[0],
            patch_size=PATCH,
            projection_dim=32,
            vocab_size=100,
        )
        return LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**text),
            image_token_index=IMAGE,
            image_seq_length=self.size[0] * self.size[1],
        )

    def picture(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[1, 3, H, W]."""
        return {"pixel_values": torch.randn(tiles, 3, *(PATCH * side for side in size), generator=generator)}


@register_model("llava")
class Llava(PatchGridAdapter):
    """LLaVA-1.5 (arXiv 2310.03744): CLIP ViT with CLS, token-wise MLP, 576 tokens per 336 px image."""

    specimen: ClassVar[type[TinyModel]] = TinyLlava

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """Asks for an option's letter."""
        return option_letter(asked)

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the CLIP (or SigLIP) encoder."""
        return self.vision.encoder.layers  # type: ignore[union-attr, return-value]

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `self_attn`."""
        return block.self_attn
