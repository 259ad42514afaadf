"""LLaVA-NeXT: a base tile, then the tiles of a larger version of the image joined, unpadded, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import Columns, ImageLayout, Size, Tried
from uniprune.modeling.tiny import IMAGE, TinyModel
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from .llava import PATCH, Llava, tiny_tower

SHAPES = ((1, 1), (1, 2), (2, 1), (2, 2))
"""Rows and columns of tiles the tiny model may cut an image into."""
COLUMNS = 32
"""Values of a token that are compared before all of them are."""


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


@dataclass(frozen=True)
class Cut:
    """One way in which tiles may have become an image.

    Attributes:
        first: number of its base tile.
        stop: number of the tile after its last one.
        origins: [N] numbers of its tokens among those of all tiles.
    """

    first: int
    stop: int
    origins: Tensor

    def moved(self, tiles: int, tokens: int) -> Cut:
        """Return the same cut, `tiles` tiles of `tokens` tokens later."""
        return Cut(self.first + tiles, self.stop + tiles, self.origins + tiles * tokens)

    def makes(self, tiles: Tensor, tokens: Tensor) -> bool:
        """Check whether `tokens` [N, C] are those of `tiles` [T, side * side, C]."""
        return torch.equal(tiles.flatten(0, 1)[self.origins.to(tiles.device)], tokens)


@register_model("llava_next", tiny=TinyLlavaNext)
class LlavaNext(Llava):
    """LLaVA-NeXT ("1.6"): 336 px tiles of 576 tokens, a newline token after every row of the larger image.

    An image is two grids: the base tile (24 x 24), and the tiles of the larger image as one grid, cropped to where the
    image is. Newline tokens carry no patch. So no method sees one, no budget counts one, and all of them stay while
    their image keeps a token, as in G-Prune's release.
    """

    tried: ClassVar[Tried] = {"text model": ("llama", "mistral"), "tower": ("clip_vision_model",)}

    def image_layouts(
        self, grids: Sequence[Grid] | None, projected: Callable[[], Tensor | None], features: Columns
    ) -> list[ImageLayout]:
        """Found from what the placeholders hold: row ends by the newline vector, tiles by their projected tokens.

        The sizes of the images never pass through a module, so hooks cannot see them. The layout is the one that
        makes, from the projected tiles, exactly the language model's input. A few columns leave the possible ones;
        equal images take the tiles after the last image's, and equal tiles are compared in all columns.

        Raises:
            UnsupportedError: no layout makes it.
        """
        few = slice(None, None, max(1, len(self.base.image_newline) // COLUMNS))
        held, tiles, layouts, following = features(few), projected(), [], 0
        for start, height, width in self._layouts(held, few):
            base = self._side**2
            markers = torch.zeros(base + height * (width + 1), dtype=torch.bool)
            markers[base + width :: width + 1] = True
            origins = None
            if tiles is not None:
                places = start + (~markers).nonzero()[:, 0].to(held.device)
                some, tokens, arrangements = tiles[..., few].to(held), held[places], self._arrangements(height, width)
                alike = (some[:, 0] == tokens[0]).all(-1).nonzero()[:, 0].tolist()
                cuts = _cuts([following], arrangements, some, tokens) or _cuts(alike, arrangements, some, tokens)
                if len(cuts) > 1:
                    whole = features(slice(None))
                    cuts = [cut for cut in cuts if cut.makes(tiles.to(whole), whole[places])]
                if not cuts:
                    raise UnsupportedError(
                        f"an image of {len(places)} tokens is not made of the tiles that were encoded; this version of "
                        "transformers may lay images out in another way"
                    )
                origins, following = cuts[0].origins, cuts[0].stop
            larger = [(1, height, width)] if height * width else []
            layouts.append(ImageLayout(((1, self._side, self._side), *larger), origins, markers))
        return layouts

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
        from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

        config, vision = self.model.config, self.model.config.vision_config
        pixels = [vision.patch_size * side for side in size]
        rows, columns = get_anyres_image_grid_shape(pixels, config.image_grid_pinpoints, vision.image_size)
        whole = torch.empty(()).expand(1, rows * self._side, columns * self._side)
        _, height, width = unpad_image(whole, pixels).shape
        return int(height), int(width)

    @property
    def _side(self) -> int:
        """Tokens per side of a tile."""
        vision = self.model.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def _layouts(self, held: Tensor, few: slice) -> Iterator[tuple[int, int, int]]:
        """Find (first placeholder, height and width of the larger grid) of every image in `held`, columns `few` of all.

        Unpadding leaves no row of an image much wider than high.
        """
        newline, base = self.base.image_newline[few].to(held), self._side**2
        widest = max(columns for _, columns in self._shapes) * self._side
        ends = (held == newline).all(-1).nonzero()[:, 0].tolist()
        start = 0
        while start < len(held):
            width = ends[0] - start - base if ends else widest + 1
            if width > widest:
                yield start, 0, 0
                start += base
                continue
            steps = [after - before for before, after in pairwise(ends)] + [0]
            height = 1 + next(i for i, step in enumerate(steps) if step != width + 1)
            yield start, height, width
            start, ends = ends[height - 1] + 1, ends[height:]

    @property
    def _shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of tiles an image may be cut into."""
        side = self.model.config.vision_config.image_size
        return [(height // side, width // side) for height, width in self.model.config.image_grid_pinpoints]

    def _arrangements(self, height: int, width: int) -> list[Cut]:
        """Return every cut that leaves such a larger grid, of tiles counted from the image's base tile.

        If nothing is left of the grid, the number of its tiles is unknown: the fewest are taken.
        """
        side, base = self._side, torch.arange(self._side**2)
        if not height * width:
            return [Cut(0, 1 + min(map(math.prod, self._shapes)), base)]
        cuts = []
        for rows, columns in self._shapes:
            top, left = rows * side - height, columns * side - width
            if min(top, left) < 0 or (top and left) or (top + left) % 2:
                continue
            tiles = len(base) * (1 + torch.arange(rows * columns)).view(rows, columns, 1, 1) + base.view(side, side)
            whole = tiles.transpose(1, 2).flatten(0, 1).flatten(1)
            larger = whole[top // 2 : top // 2 + height, left // 2 : left // 2 + width]
            cuts.append(Cut(0, 1 + rows * columns, torch.cat((base, larger.flatten()))))
        return cuts


def _cuts(firsts: Iterable[int], arrangements: Sequence[Cut], tiles: Tensor, tokens: Tensor) -> list[Cut]:
    """Return those of `arrangements`, begun at one of the tiles `firsts`, that make an image's `tokens` [N, C]."""
    moved = (cut.moved(first, tiles.shape[1]) for first in firsts for cut in arrangements)
    return [cut for cut in moved if cut.stop <= len(tiles) and cut.makes(tiles, tokens)]
