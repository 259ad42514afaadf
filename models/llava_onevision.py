"""LLaVA-OneVision: LLaVA-NeXT's tiles of a SigLIP tower, interpolated where there are many; pooled frames of videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.modeling.adapter import Tried
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.origins import Origins
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, Shown, padded_to_square
from uniprune.modeling.tiny import IMAGE, VIDEO, VISION
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from .llava import PATCH
from .llava_next import LlavaNext, TinyLlavaNext, in_order

VIDEOS = "get_video_features"


class TinyLlavaOnevision(TinyLlavaNext):
    """Four SigLIP layers; tiles of `size`, interpolated where they hold more than `most` tiles."""

    most: ClassVar[int] = 9

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaOnevisionConfig."""
        from transformers import LlavaOnevisionConfig, Qwen2Config

        tower = {"num_hidden_layers": 4, "num_attention_heads": 4, "image_size": self.side, "patch_size": PATCH}
        return LlavaOnevisionConfig(
            vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION, **tower},
            text_config=Qwen2Config(**text),
            image_token_index=IMAGE,
            video_token_index=VIDEO,
            image_grid_pinpoints=self.pinpoints,
            vision_aspect_ratio=f"anyres_max_{self.most}",
        )

    def clip(self, generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
        """Three frames, and a newline."""
        pixels = torch.randn(1, 3, 3, self.side, self.side, generator=generator)
        return [VIDEO] * (3 * ((self.size[0] + 1) // 2) ** 2 + 1), {"pixel_values_videos": pixels}


@register_model("llava_onevision", tiny=TinyLlavaOnevision)
class LlavaOnevision(LlavaNext):
    """LLaVA-OneVision (arXiv 2408.03326): 384 px tiles of 729 tokens, 14 x 14 tokens a video frame.

    The larger grid of an image is interpolated if it holds more than nine tiles, and every frame of a video is pooled,
    both after the projector: cells are then means of up to four projected tokens. A newline token ends every row, every
    image of a prompt with several, which are not cut into tiles, and every video.
    """

    videos: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    encoders: ClassVar[tuple[str, ...]] = ("get_image_features", VIDEOS)
    tried: ClassVar[Tried] = {
        "text model": ("qwen2",),
        "tower": ("siglip_vision_model",),
        "feature strategy": ("full",),
    }

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """The benchmark's: VLMEvalKit's wrapper has none of its own."""
        return None

    def image_layouts(self, grids: Sequence[Grid] | None, given: Mapping[str, Any]) -> list[ImageLayout] | None:
        """By sizes and frames, as the model packs and pools its tokens.

        Raises:
            UnsupportedError: the sizes are unknown.
        """
        if VIDEOS in given:
            videos, frames = given[VIDEOS][:2]
            return in_order([self._video(frames)] * videos)
        sizes, counts = self._sizes_of(given), given.get("batch_num_images")
        counts = [1] * len(sizes) if counts is None else torch.as_tensor(counts).tolist()
        cut = [count == 1 for count in counts for _ in range(count)]
        return in_order(
            self._layout(pixels, given) if alone else self._whole() for pixels, alone in zip(sizes, cut, strict=False)
        )

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """As LLaVA-NeXT; images of a prompt with several are padded to a square."""
        return super().image_areas(processor, size, images) if images == 1 else [padded_to_square(size)]

    def clip_areas(self, processor: Any, size: Size, frames: int) -> Shown:
        """Every frame stretched to a square."""
        return Shown((WHOLE,) * frames, frames, 1)

    def _form(self, pixels: Size, images: int) -> tuple[ImageLayout, int]:
        """Images of a prompt with several have one tile each."""
        return super()._form(pixels, images) if images == 1 else self._whole()

    def _layout(self, pixels: list[int], given: Mapping[str, Any]) -> tuple[ImageLayout, int]:
        """Run the model's own packing on the places of an image's tokens in the joined tiles."""
        (rows, columns), side = self._shape(pixels), self._side
        places = _places(rows * side, columns * side)
        tiles = places.view(rows, side, columns, side, 2).transpose(1, 2).reshape(rows * columns, side**2, 2)
        (packed,), _ = self.base.pack_image_features(
            [torch.cat((tiles[:1], tiles))],  # the first one stands for the base tile, which stays as it is
            [pixels],
            image_newline=torch.tensor([-1.0, -1.0], dtype=places.dtype),
            vision_aspect_ratio=given.get("vision_aspect_ratio") or self.model.config.vision_aspect_ratio,
        )
        markers, base = packed[:, 0] < 0, torch.arange(side**2)
        numbers = torch.arange(side**2, (1 + rows * columns) * side**2).view(rows, columns, side, side)
        larger = _between(packed[side**2 :][~markers[side**2 :]], numbers.transpose(1, 2).flatten(2).flatten(0, 1))
        return self._placed(Origins.joined((Origins.single(base), larger)), markers), numbers.numel() + side**2

    def _whole(self) -> tuple[ImageLayout, int]:
        """An image of a prompt with several: one tile, and a newline token."""
        tokens = self._side**2
        ends = torch.arange(tokens + 1) == tokens
        return ImageLayout(((1, self._side, self._side),), Origins.single(torch.arange(tokens)), ends), tokens

    def _video(self, frames: int) -> tuple[ImageLayout, int]:
        """Run the model's own pooling on the places of a frame's tokens."""
        side, tokens = self._side, self._side**2
        pooled = self.base.apply_pooling(_places(side, side).view(1, tokens, 2))[0]
        cells = _between(pooled, torch.arange(tokens).view(side, side))
        origins = Origins.joined([cells.moved(frame * tokens) for frame in range(frames)])
        size, ends = math.isqrt(len(cells)), torch.arange(len(origins) + 1) == len(origins)
        return ImageLayout(((frames, size, size),), origins, ends), frames * tokens

    def _larger(self, size: Size) -> Size:
        """As LLaVA-NeXT's, interpolated by the model's rule."""
        height, width = super()._larger(size)
        most = int(self.model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(height * width / (most * self._side**2))
        return (int(height // ratio), int(width // ratio)) if ratio > 1.1 else (height, width)


def _places(height: int, width: int) -> Tensor:
    """[height, width, 2] row and column."""
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid, -1).double()


def _between(places: Tensor, numbers: Tensor) -> Origins:
    """Return the origins of cells at `places` [N, 2] among tokens `numbers` [H, W], interpolated bilinearly."""
    places = places.where((places - places.round()).abs() > 1e-6, places.round())
    low, high = places.floor().long(), places.ceil().long()
    (below, right), (above, left) = (places - low).T, (1 - places + low).T
    (top, first), (bottom, last) = low.T, high.T
    index = torch.stack((numbers[top, first], numbers[top, last], numbers[bottom, first], numbers[bottom, last]), 1)
    share = torch.stack((above * left, above * right, below * left, below * right), 1)
    return Origins(index, share.float()) if right.any() or below.any() else Origins.single(index[:, 0])
