"""The part of an adapter that makes images of random pixels."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from uniprune.errors import UnsupportedError

Size = tuple[int, int]
"""Height and width of an image in visual tokens."""


class RandomImages:
    """Part of `ModelAdapter` that `bench`, `check` and the tests need; by default these are refused."""

    @cached_property
    def visual_token_ids(self) -> list[int]:
        """Placeholder ids of images (and videos) in `input_ids`."""
        raise NotImplementedError

    @property
    def usual_tokens(self) -> int:
        """Visual tokens of one image of ordinary size, the default of `bench`."""
        raise self._no_images()

    def image_of(self, tokens: int) -> tuple[Size, int]:
        """Return the size of a tile and the number of tiles of an image that becomes `tokens` visual tokens.

        Raises:
            UserError: the family cannot encode that many.
        """
        raise self._no_images()

    def random_image(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return random pixel inputs of one image; those of several images are concatenated along dimension 0."""
        raise self._no_images()

    def _no_images(self) -> UnsupportedError:
        return UnsupportedError(
            f"{type(self).__name__} cannot make random images; write its usual_tokens, image_of and random_image"
        )

    def placeholders(self, size: Size, tiles: int) -> int:
        """Return the number of placeholders of such an image; by default one per visual token."""
        return size[0] * size[1] * tiles

    def image_ids(self, size: Size, tiles: int) -> list[int]:
        """Return the ids of such an image in a prompt: its placeholders, and what a processor writes between them."""
        return self.visual_token_ids[:1] * self.placeholders(size, tiles)

    def id_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        """Return further arguments of a forward that follow from its input ids [B, L]."""
        return {}
