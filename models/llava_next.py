"""LLaVA-NeXT: a base tile, then the tiles of a larger version of the image joined, unpadded, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import Tried
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.input_forms import CutForms, check_processor
from uniprune.modeling.origins import Origins
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, check_described, cut, framed
from uniprune.modeling.tiny import IMAGE, TinyModel
from uniprune.pruning.input_stage import Forms
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from .llava import PATCH, Llava, tiny_tower

SHAPES = ((1, 1), (1, 2), (2, 1), (2, 2))
"""Rows and columns of tiles the tiny model may cut an image into."""


class TinyLlavaNext(TinyModel):
    """Four CLIP layers; tiles of `size`, images of any size, which take a base tile and one to four further ones."""

    dynamic: ClassVar[bool] = True

    def config(self, text: dict[str, Any]) -> Any:
        """LlavaNextConfig."""
        from transformers import LlamaConfig, LlavaNextConfig

        return LlavaNextConfig(
            vision_config=tiny_tower(self.size),
            text_config=LlamaConfig(**text),
            image_token_index=IMAGE,
            image_grid_pinpoints=self.pinpoints,
            image_seq_length=self.size[0] * self.size[1],
        )

    @property
    def side(self) -> int:
        """Pixels per side of a tile."""
        return PATCH * self.size[0]

    @property
    def pinpoints(self) -> list[list[int]]:
        """Pixel sizes an image may be scaled to."""
        return [[self.side * rows, self.side * columns] for rows, columns in SHAPES]


@register_model("llava_next", tiny=TinyLlavaNext)
class LlavaNext(Llava):
    """LLaVA-NeXT ("1.6"): 336 px tiles of 576 tokens, a newline token after every row of the larger image.

    An image is two grids: the base tile (24 x 24), and the tiles of the larger image as one grid, cropped to where the
    image is. Newline tokens carry no patch. So no method sees one, no budget counts one, and all of them stay while
    their image keeps a token, as in G-Prune's release.
    """

    tried: ClassVar[Tried] = {"text model": ("llama", "mistral"), "tower": ("clip_vision_model",)}
    overview: ClassVar[int | None] = 0
    encoders: ClassVar[tuple[str, ...]] = ("get_image_features",)

    def whole_tower(self) -> str | None:
        """Return the reason: a choice per tile would not meet the budget of the image."""
        return "its tiles are cut to the shape of the image after the tower, and what is cut off would be chosen, too"

    def image_layouts(self, grids: Sequence[Grid] | None, given: Mapping[str, Any]) -> list[ImageLayout] | None:
        """By the sizes in pixels, as the model packs its tokens.

        Raises:
            UnsupportedError: the sizes are unknown.
        """
        return in_order(self._layout(pixels, given) for pixels in self._sizes_of(given))

    def input_forms(self, processor: Any, images: int) -> Forms:
        """Fewer tiles, of smaller images; the base tile and some of the larger image are always there."""
        check_processor(processor, "LlavaNextImageProcessor", "LlavaOnevisionImageProcessor")
        return CutForms(lambda size: sum(map(math.prod, self._form(size, images)[0].grids)))

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """The whole image stretched to a tile, then tiles of it scaled and padded at the centre."""
        from transformers.image_processing_utils import get_patch_output_size, select_best_resolution

        own = processor.image_processor
        check_described(own, "LlavaNextImageProcessor", "LlavaOnevisionImageProcessor")
        canvas = select_best_resolution(size, own.image_grid_pinpoints)
        scaled = get_patch_output_size(torch.empty((3, *size), device="meta"), canvas, "channels_first")
        corner = [-((outer - inner) // 2) for outer, inner in zip(canvas, scaled, strict=True)]
        rows, columns = self._shape(list(size))
        return [WHOLE, *cut(framed(scaled, (corner[0], corner[1]), canvas), rows, columns)]

    def _form(self, pixels: Size, images: int) -> tuple[ImageLayout, int]:
        """Return the layout of an image of a prompt, as `_layout` does."""
        return self._layout(list(pixels), {})

    def any_size(self) -> AbstractContextManager[None]:
        """Tiles are of the tower's own size."""
        return nullcontext()

    def _sizes_of(self, given: Mapping[str, Any]) -> list[list[int]]:
        """Height and width in pixels of every encoded image."""
        if given.get("image_sizes") is None:
            raise UnsupportedError(
                "the image features were computed outside this session, so it is unknown which tokens end rows; pass "
                "pixel values and image_sizes, or features of this session (Session.encode)"
            )
        sizes: list[list[int]] = torch.as_tensor(given["image_sizes"]).tolist()
        return sizes

    def _layout(self, pixels: list[int], given: Mapping[str, Any]) -> tuple[ImageLayout, int]:
        """Run the model's own packing on the numbers of an image's tokens: its layout, and how many the tower made."""
        rows, columns = self._shape(pixels)
        numbers = torch.arange((1 + rows * columns) * self._side**2)
        tiles = [numbers.view(-1, self._side**2, 1)]
        (packed,), _ = self.base.pack_image_features(tiles, [pixels], "default", image_newline=torch.tensor([-1]))
        return self._placed(Origins.single(packed[packed >= 0]), packed[:, 0] < 0), len(numbers)

    def _placed(self, origins: Origins, markers: Tensor) -> ImageLayout:
        """Return the layout of a base tile and rows that end with a marker."""
        rows, cells = int(markers.sum()), len(origins) - self._side**2
        larger = [(1, rows, cells // rows)] if cells else []
        return ImageLayout(((1, self._side, self._side), *larger), origins, markers)

    @property
    def usual_tokens(self) -> int:
        """The largest image that is nearest to a square: 2880, the number papers quote."""
        return max(self._sizes, key=lambda tokens: (min(self._sizes[tokens]), tokens))

    def image_of(self, tokens: int) -> tuple[Size, int]:
        """The image nearest to a square that has as many patches, as budgets count; newline tokens come on top."""
        if tokens in self._sizes:
            return self._sizes[tokens], 1
        below = max((possible for possible in self._sizes if possible < tokens), default=None)
        above = min((possible for possible in self._sizes if possible > tokens), default=None)
        nearest = " or ".join(str(possible) for possible in (below, above) if possible is not None)
        raise UserError(f"no image has {tokens} visual tokens with {type(self).__name__}; use {nearest}")

    def random_image(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[1, most tiles of any image, 3, side, side], and the size in pixels of the image before it was cut.

        The model drops the tiles that the image does not have; equal shapes can be concatenated.
        """
        vision, most = self.model.config.vision_config, 1 + max(map(math.prod, self._shapes))
        pixels = torch.randn(1, most, 3, vision.image_size, vision.image_size, generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([[vision.patch_size * side for side in size]])}

    def placeholders(self, size: Size, tiles: int) -> int:
        """The base tile, and the rows of the larger grid, each with a newline token."""
        height, width = self._larger(size)
        return self._side**2 + height * (width + 1)

    @cached_property
    def _sizes(self) -> dict[int, Size]:
        """Number of visual tokens -> size of the image nearest to a square that has as many."""
        side, found = self._side, dict[int, Size]()
        for rows, columns in self._shapes:
            high, wide = rows * side, columns * side
            for size in [(high, width) for width in range(1, wide + 1)] + [(height, wide) for height in range(1, high)]:
                tokens = side**2 + math.prod(self._larger(size))
                found[tokens] = min(size, found.get(tokens, size), key=lambda size: max(size) / min(size))
        return found

    def _larger(self, size: Size) -> Size:
        """Size of the larger grid of an image, cropped by the model's own rules."""
        from transformers.models.llava_next.modeling_llava_next import unpad_image

        pixels = [self.model.config.vision_config.patch_size * side for side in size]
        rows, columns = self._shape(pixels)
        whole = torch.empty(()).expand(1, rows * self._side, columns * self._side)
        _, height, width = unpad_image(whole, pixels).shape
        return int(height), int(width)

    def _shape(self, pixels: list[int]) -> tuple[int, int]:
        """Rows and columns of tiles an image is cut into, by the model's own rules."""
        from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

        config = self.model.config
        rows, columns = get_anyres_image_grid_shape(
            pixels, config.image_grid_pinpoints, config.vision_config.image_size
        )
        return rows, columns

    @property
    def _side(self) -> int:
        """Tokens per side of a tile."""
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of tiles an image may be cut into."""
        side = self.model.config.vision_config.image_size
        return [(height // side, width // side) for height, width in self.model.config.image_grid_pinpoints]


def in_order(images: Iterable[tuple[ImageLayout, int]]) -> list[ImageLayout]:
    """Return layouts as those of one call; each is given as if it were alone, with the tokens the tower made of it."""
    found, start = list[ImageLayout](), 0
    for layout, tokens in images:
        found.append(layout.moved(start))
        start += tokens
    return found
