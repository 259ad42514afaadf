"""Methods whose release has one schedule: the shares of the tokens that are left by each pruning layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from uniprune.errors import UserError
from uniprune.pruning.fields import Share
from uniprune.pruning.schedules import MultiStage, between

ONE_TOKEN = 1e-9
"""A share that is rounded to one token."""


@dataclass(frozen=True, kw_only=True)
class Cuts(MultiStage):
    """A method with one schedule; between it and keeping all or nothing, shares are interpolated.

    Args:
        left: share of the tokens left by each pruning layer in the released schedule; 0 leaves one token.
    """

    left: tuple[Share, ...] = ()
    named: ClassVar[int] = -1
    """The pruning layer whose share names the schedule, with `budget="paper"`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        falling = all(more > less for more, less in pairwise((1.0, *self.left)))
        if not self.left or not falling or not self.left[self.named]:
            raise UserError(f"left {list(self.left)} must fall from below 1, for example [0.5, 0.25]")

    def shares(self, level: float, layers: Sequence[int], num_layers: int) -> list[float]:
        """The released schedule, interpolated."""
        own, count = [max(share, ONE_TOKEN) for share in self.left], len(self.left)
        return between({0.0: [0.0] * count, own[self.named]: own, 1.0: [1.0] * count}, level)[: len(layers)]
