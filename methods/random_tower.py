"""Random choice inside the vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from uniprune.pruning.functional import random_subset
from uniprune.pruning.tower import InTower
from uniprune.pruning.view import View
from uniprune.registry import register_method


@register_method("random-tower")
@dataclass(frozen=True, kw_only=True)
class RandomTower(InTower):
    """Keeps a uniformly random subset of each tile's tokens from a block of the vision tower on: a baseline.

    Cost: none; the later blocks of the tower are spared, too.
    """

    random: ClassVar[bool] = True

    def select(self, view: View, keep: int) -> Tensor:
        return random_subset(len(view.cells), keep, view.generator)
