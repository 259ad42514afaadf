"""LLaVA-NeXT-Video: images as LLaVA-NeXT; every frame of a video is pooled before the projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from uniprune.modeling.adapter import Tried
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.origins import Origins
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import Shown, scaled_and_cropped
from uniprune.modeling.tiny import IMAGE, VIDEO
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from .llava import tiny_tower
from .llava_next import LlavaNext, TinyLlavaNext

VIDEOS = "get_video_features"


class TinyLlavaNextVideo(TinyLlavaNext):
    """Four CLIP layers; frames of half as many tokens per side as a tile."""

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaNextVideoConfig."""
        from transformers import LlamaConfig, LlavaNextVideoConfig

        return LlavaNextVideoConfig(
            vision_config=tiny_tower(self.size),
            text_config=LlamaConfig(**text),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=self.pinpoints,
            image_seq_length=self.size[0] * self.size[1],
        )

    def clip(self, generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
        """Three frames."""
        pixels = torch.randn(1, 3, 3, self.side, self.side, generator=generator)
        return [VIDEO] * 3 * (self.size[0] // 2) ** 2, {"pixel_values_videos": pixels}


@register_model("llava_next_video", tiny=TinyLlavaNextVideo)
class LlavaNextVideo(LlavaNext):
    """LLaVA-NeXT-Video: 144 tokens a frame, each the average of 2 x 2 patches that is then projected; no newlines."""

    videos: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    encoders: ClassVar[tuple[str, ...]] = ("get_image_features", VIDEOS)
    tried: ClassVar[Tried] = {"text model": ("llama",), "tower": ("clip_vision_model",)}

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """The benchmark's: VLMEvalKit has no wrapper of the family."""
        return None

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """Tiles, or the pooled frames of videos."""
        found = super().grids(args, kwargs)
        size = self._side // self._stride
        return [(1, size, size)] * len(found) if VIDEOS in kwargs else found

    def patches(self, grid: Grid) -> int:
        """Of a whole tile or frame."""
        return self._side**2

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Average what the patches of a frame's token have, whichever way the model pools their features."""
        if grids[0][1] == self._side:
            return super().to_tokens(values, grids)
        frames = values[:, int(self.has_cls) :].float().transpose(1, 2).unflatten(2, (self._side, self._side))
        return list(F.avg_pool2d(frames, self._stride).flatten(2).transpose(1, 2))

    def image_layouts(self, grids: Sequence[Grid] | None, given: Mapping[str, Any]) -> list[ImageLayout] | None:
        """A video is one grid of all its frames.

        Raises:
            UnsupportedError: the sizes of images are unknown.
        """
        if grids is None or VIDEOS not in given:
            return super().image_layouts(grids, given)
        (videos, frames), (_, height, width) = given[VIDEOS][:2], grids[0]
        tokens = torch.arange(videos * frames * height * width).view(videos, -1)
        return [ImageLayout(((frames, height, width),), Origins.single(video)) for video in tokens]

    def clip_areas(self, processor: Any, size: Size, frames: int) -> Shown:
        """The middle of every frame."""
        return Shown((scaled_and_cropped(processor.video_processor, size),) * frames, frames, 1)

    @property
    def _stride(self) -> int:
        """Patches per side of a frame's token."""
        return int(self.model.config.spatial_pool_stride)
