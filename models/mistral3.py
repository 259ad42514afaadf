"""Mistral Small 3.1 and 3.2, and Ministral 3: Pixtral's tower, four patches of which are merged after a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.modeling.adapter import Tried
from uniprune.modeling.random_images import Size
from uniprune.modeling.tiny import IMAGE, TinyPrompt
from uniprune.registry import register_model

from .pixtral import Pixtral, TinyPixtral, tiny_tower


class TinyMistral3(TinyPixtral):
    """Four Pixtral layers, four patches to a token; images of two tokens and more."""

    def config(self, text: dict[str, Any]) -> Any:
        """Mistral3Config."""
        from transformers import Mistral3Config

        return Mistral3Config(
            vision_config=tiny_tower(),
            text_config=self.language_model(text),
            image_token_id=IMAGE,
            spatial_merge_size=2,
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )

    def language_model(self, text: dict[str, Any]) -> Any:
        """MistralConfig."""
        from transformers import MistralConfig

        return MistralConfig(**text, head_dim=16, sliding_window=None)

    def prompt(self, generator: torch.Generator, images: Sequence[Size] = (), *rest: Any, **options: Any) -> TinyPrompt:
        """As in the base class, but for images of a single token, which transformers fails on."""
        return super().prompt(generator, [(1, 2) if size == (1, 1) else size for size in images], *rest, **options)


@register_model("mistral3", tiny=TinyMistral3)
class Mistral3(Pixtral):
    """Mistral Small 3.1 and 3.2, Ministral 3: Pixtral's tower, 28 px a token; text tokens end the rows of an image.

    Ministral 3 scales queries by their position in the un-pruned prompt, so its attention is not recomputed.
    """

    tried: ClassVar[Tried] = {
        "text model": ("mistral", "ministral3"),
        "tower": ("pixtral",),
        "rotary positions": ("default", "yarn"),
    }

    def project(self, features: Tensor) -> Tensor:
        """Norm patch by patch, then as the projector does; its merger takes a token's values channel by channel."""
        projector, patches = self.projector, self.merge**2
        normed = projector.norm.forward(features.unflatten(1, (patches, -1)))
        merged = projector.patch_merger.merging_layer.forward(normed.transpose(1, 2).flatten(1))
        tokens: Tensor = projector.linear_2.forward(projector.act(projector.linear_1.forward(merged)))
        return tokens
