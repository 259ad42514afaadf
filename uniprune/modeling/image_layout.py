"""Placement of an encoded image in the prompt: its grids, the tower's tokens in every cell, and its markers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from uniprune.modeling.origins import Origins
from uniprune.pruning.view import Grid


@dataclass(frozen=True)
class ImageLayout:
    """Placement of one encoded image in the prompt.

    Attributes:
        grids: (t, h, w) of its grids of tokens, in the order of their placeholders.
        origins: for every cell of the grids, its token among all that the tower's call made, or the tokens it is a
            mean of; None if unknown.
        markers: [P] True at placeholders of the image that hold no token but, say, the end of a row; None for none.
    """

    grids: tuple[Grid, ...]
    origins: Origins | None = None
    markers: Tensor | None = None

    @cached_property
    def placeholders(self) -> int:
        """P, the number of placeholders of the image."""
        return sum(map(math.prod, self.grids)) if self.markers is None else len(self.markers)

    def moved(self, tokens: int) -> ImageLayout:
        """Return the same placement of an image that is encoded so many tokens later in the call."""
        return self if self.origins is None else replace(self, origins=self.origins.moved(tokens))
