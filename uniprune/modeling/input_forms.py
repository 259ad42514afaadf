"""Forms of images by kind of processor: rectangles of patches, one square, tiles of one size, versions that are cut up.

`uniprune.pruning.input_stage` explains forms. Everything here is numbers, so that worker processes can have it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from uniprune.errors import UnsupportedError
from uniprune.modeling.image_settings import with_settings
from uniprune.pruning.input_stage import Form, Size, largest_grids

STEPS = 64
"""Sizes of an image, from whole to 1 / STEPS of its sides, that are tried where a processor cuts it up."""


def check_processor(processor: Any, *kinds: str) -> None:
    """Check that an image processor is of a kind whose sizes are described.

    Raises:
        UnsupportedError: it is another.
    """
    name = type(processor.image_processor).__name__
    if name.removesuffix("Fast").removesuffix("Pil") not in kinds:
        raise UnsupportedError(
            f"the sizes that {name} makes are not described, so images cannot be resized to a budget; expected "
            f"{' or '.join(kinds)}"
        )


@dataclass(frozen=True)
class GridForms:
    """Any rectangle of tokens, within limits of pixels.

    Attributes:
        side: pixels per side of a token.
        least, most: the processor's limits of pixels.
    """

    side: int
    least: int
    most: int

    @classmethod
    def of(cls, processor: Any) -> GridForms:
        """Return those of a processor with patches, merged `merge_size` x `merge_size`."""
        own = processor.image_processor
        return cls(own.patch_size * own.merge_size, own.size["shortest_edge"], own.size["longest_edge"])

    def pixels(self, size: Size) -> Size:
        """Return the size to which the processor scales an image."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        height, width = smart_resize(*size, factor=self.side, min_pixels=self.least, max_pixels=self.most)
        return int(height), int(width)

    def full(self, size: Size) -> int:
        """Return the tokens of an image that is left as it is."""
        return math.prod(self.pixels(size)) // self.side**2

    def within(self, size: Size, keep: int) -> list[Form]:
        """Return the largest rectangles."""
        if keep >= (full := self.full(size)):
            height, width = self.pixels(size)
            return [Form(full, (height // self.side, width // self.side))]
        grids = largest_grids(keep)
        return [Form(math.prod(grid), grid, (self.side * grid[0], self.side * grid[1])) for grid in grids]

    def processor(self, processor: Any, forms: Sequence[Form]) -> Any:
        """Return the processor without its lower limit, which would enlarge small images again."""
        if all(form.pixels is None for form in forms):
            return processor
        limits = {"shortest_edge": min(self.least, self.side**2), "longest_edge": self.most}
        return with_settings(processor, {"size": limits})


@dataclass(frozen=True)
class SquareForms:
    """One square of any number of tokens per side, up to that which the tower was made for.

    Attributes:
        patch: pixels per side of a token.
        side: tokens per side of the processor's own square.
    """

    patch: int
    side: int

    def full(self, size: Size) -> int:
        """Return the tokens of every image."""
        return self.side**2

    def within(self, size: Size, keep: int) -> list[Form]:
        """Return the largest square."""
        side = min(self.side, math.isqrt(keep))
        return [Form(side**2, (1, 1), limits=(side,))]

    def processor(self, processor: Any, forms: Sequence[Form]) -> Any:
        """Return the processor that scales, and crops, to the smallest square."""
        side = min(form.limits[0] for form in forms)
        if side == self.side:
            return processor
        size, crop = (dict.fromkeys(edges, side * self.patch) for edges in self._edges(processor))
        return with_settings(processor, {"size": size, **({"crop_size": crop} if crop else {})})

    @staticmethod
    def _edges(processor: Any) -> tuple[list[str], list[str]]:
        """Return the names of the sides that the processor scales to, and of those that it crops to."""
        own = processor.image_processor
        size, crop = dict(own.size or {}), dict(getattr(own, "crop_size", None) or {})
        return [name for name, value in size.items() if value], [name for name, value in crop.items() if value]


@dataclass(frozen=True)
class TileForms:
    """Tiles of one size, and a thumbnail if there are several; one smaller tile where a budget is below a tile.

    Attributes:
        tiles: function from a size in pixels and the most tiles to the number of tiles, the thumbnail included.
        most: the processor's limit.
        pixels: per side of a token.
        side: tokens per side of a tile.
    """

    tiles: Callable[[Size, int], int]
    most: int
    pixels: int
    side: int

    def full(self, size: Size) -> int:
        """Return the tokens of an image that is left as it is."""
        return self.tiles(size, self.most) * self.side**2

    def within(self, size: Size, keep: int) -> list[Form]:
        """Return the form of most tiles, or the largest square below one."""
        whole = self.side**2
        if keep < whole:
            side = math.isqrt(keep)
            return [Form(side**2, (1, 1), limits=(1, side))]
        counts = {most: self.tiles(size, most) for most in range(self.most, 0, -1)}
        most = max((most for most in counts if counts[most] * whole <= keep), key=counts.__getitem__, default=1)
        return [Form(counts[most] * whole, (1, 1), limits=(most, self.side))]

    def processor(self, processor: Any, forms: Sequence[Form]) -> Any:
        """Return the processor of the fewest tiles and the smallest tile among several images."""
        most, side = (min(form.limits[i] for form in forms) for i in range(2))
        settings: dict[str, Any] = {
            "max_patches": most,
            "min_patches": min(most, processor.image_processor.min_patches),
        }
        if side < self.side:
            settings["size"] = {"height": side * self.pixels, "width": side * self.pixels}
        changed = copy.copy(with_settings(processor, settings))
        changed.image_seq_length = side**2
        return changed


@dataclass(frozen=True)
class CutForms:
    """Versions of an image that the processor scales up and cuts into tiles, of which a smaller image has fewer.

    Attributes:
        tokens: function from a size in pixels to the number of visual tokens.
    """

    tokens: Callable[[Size], int]

    def full(self, size: Size) -> int:
        """Return the tokens of an image that is left as it is."""
        return self.tokens(size)

    def within(self, size: Size, keep: int) -> list[Form]:
        """Return the largest image of the most tokens, of the sizes that are tried."""
        sizes = [tuple(max(1, side * step // STEPS) for side in size) for step in range(STEPS, 0, -1)]
        counts = {(height, width): self.tokens((height, width)) for height, width in sizes}
        fitting = [one for one in counts if counts[one] <= keep]
        best = max(fitting, key=counts.__getitem__) if fitting else min(counts, key=counts.__getitem__)
        return [Form(counts[best], size, None if best == size else best)]

    def processor(self, processor: Any, forms: Sequence[Form]) -> Any:
        """Return the same processor."""
        return processor
