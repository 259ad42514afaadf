"""The part of a model's adapter that input stages need: the sizes in which it encodes images."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from uniprune.errors import UnsupportedError
from uniprune.pruning.input_stage import Forms


class ImageSizes:
    """Sizes of images; by default none is described, and input stages are refused."""

    def input_forms(self, processor: Any, images: int) -> Forms:
        """Return the forms in which images of a prompt can be encoded.

        Args:
            processor: that of the prompt.
            images: images of the prompt.

        Raises:
            UnsupportedError: the family, or this processor, does not describe them.
        """
        raise UnsupportedError(
            f"the sizes in which {type(self).__name__} can encode an image are not described (input_forms), so images "
            "cannot be resized to a budget; use a method that prunes, or a model of another family"
        )

    def any_size(self) -> AbstractContextManager[None]:
        """Return a block inside which the tower takes images of the sizes in `input_forms`."""
        return nullcontext()
