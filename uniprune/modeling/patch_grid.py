"""Adapter of towers that take whole images as grids of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter, Size
from uniprune.pruning.view import Grid


class PatchGridAdapter(ModelAdapter):
    """Adapter of towers of [images, 3, H, W] as squares of patches, with or without CLS token (CLIP, InternViT).

    Attributes:
        parts: names of tower and projector in the base model.
    """

    parts: ClassVar[tuple[str, str]] = ("vision_tower", "multi_modal_projector")

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.vision, self.projector = (getattr(self.base, name) for name in self.parts)
        self.has_cls = getattr(model.config, "vision_feature_select_strategy", "default") == "default"
        self._patch = _pair(model.config.vision_config.patch_size)
        self._pixels = _pair(model.config.vision_config.image_size)

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """One square or rectangular grid per image, from the pixel size."""
        pixels = args[0] if args else kwargs["pixel_values"]
        return [(1, *self._size_of(pixels.shape[-2:]))] * pixels.shape[0]

    def _size_of(self, pixels: Sequence[int]) -> Size:
        """Size in tokens of an image of `pixels`, height first."""
        height, width = self._patch
        return pixels[0] // height // self.merge, pixels[1] // width // self.merge

    @property
    def usual_tokens(self) -> int:
        """An image or tile of the size the tower was made for."""
        return math.prod(self._size_of(self._pixels))

    def image_of(self, tokens: int) -> tuple[Size, int]:
        """Tiles of the size the tower was made for."""
        count, rest = divmod(tokens, self.usual_tokens)
        if rest or not count:
            raise UserError(
                f"{type(self).__name__} encodes {self.usual_tokens} visual tokens per image or tile, so {tokens} are "
                f"impossible; use a multiple of {self.usual_tokens}"
            )
        return self._size_of(self._pixels), count

    def random_image(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[tiles, 3, H, W] of the size the tower was made for, which is the only one it takes."""
        return {"pixel_values": torch.randn(tiles, 3, *self._pixels, generator=generator)}

    def variant(self) -> dict[str, str]:
        """As in the base class, and the states of the tower that are projected."""
        config = self.model.config
        several = isinstance(getattr(config, "vision_feature_layer", -1), (list, tuple))
        strategy = getattr(config, "vision_feature_select_strategy", "default")
        return {**super().variant(), "feature layers": "several" if several else "one", "feature strategy": strategy}

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Separate query and key projections, with an optional norm over the full width."""
        query, key = attention.q_proj(hidden), attention.k_proj(hidden)
        query, key = (attention.q_norm(query), attention.k_norm(key)) if hasattr(attention, "q_norm") else (query, key)
        shape = (*hidden.shape[:-1], attention.num_heads, attention.head_dim)
        return query.view(shape).transpose(1, 2), key.view(shape).transpose(1, 2), attention.scale

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Drop the CLS token, then average blocks of `merge` x `merge` patches."""
        values = values[:, int(self.has_cls) :].float()
        if self.merge > 1:
            (_, height, width), channels = grids[0], values.shape[-1]
            image = values.transpose(1, 2).reshape(-1, channels, height * self.merge, width * self.merge)
            values = F.avg_pool2d(image, self.merge).flatten(2).transpose(1, 2)
        return list(values)

    def feature_block(self) -> int:
        """From `vision_feature_layer`, which counts the embeddings as layer 0."""
        layer = self.model.config.vision_feature_layer
        last = int(layer[-1] if isinstance(layer, (list, tuple)) else layer)
        return last if last < 0 else last - 1

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """One [N, C] per image; patches of a token are already next to each other in C."""
        return list(entering.reshape(len(grids), -1, entering.shape[-1]))

    def project(self, features: Tensor) -> Tensor:
        """The projector treats tokens one by one."""
        tokens: Tensor = self.projector.forward(features[None])[0]
        return tokens


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, of a configuration that may give one number for both."""
    return (size[0], size[1]) if isinstance(size, (list, tuple)) else (size, size)
