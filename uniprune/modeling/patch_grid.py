"""Adapter of towers that take whole images as grids of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.random_images import Size
from uniprune.pruning.view import Grid

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation of the pixels of CLIP's processor."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The same of processors that use those of ImageNet."""


class PatchGridAdapter(ModelAdapter):
    """Adapter of towers of [images, 3, H, W] as squares of patches, with or without CLS token (CLIP, InternViT).

    Attributes:
        parts: names of tower and projector in the base model.
        normalisation: of the processor's pixels, mean and standard deviation of red, green and blue.
    """

    parts: ClassVar[tuple[str, str]] = ("vision_tower", "multi_modal_projector")
    normalisation: tuple[Sequence[float], Sequence[float]] = ((0.5,) * 3, (0.5,) * 3)

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

    def patch_places(self, grids: Sequence[Grid]) -> Tensor:
        """Blocks of `merge` x `merge` patches of the image's rows; the same for every image."""
        (_, height, width), merge = grids[0], self.merge
        patches = torch.arange(height * merge * width * merge).view(height, merge, width, merge)
        return patches.transpose(1, 2).reshape(height * width, merge**2).repeat(len(grids), 1)

    def token_pixels(self, pixels: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """The rectangle of each token's patches."""
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in self.normalisation)
        sides = tuple(side * self.merge for side in self._patch)
        return list(F.unfold(pixels * std + mean, sides, stride=sides).transpose(1, 2))

    def last_block(self) -> int:
        """The one whose states are projected."""
        return self.feature_block() % len(self.vision_blocks())

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
