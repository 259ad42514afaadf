"""What one prefill really did, measured from tensor shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from uniprune.engine.token_map import TokenGroup, image_of
from uniprune.pruning.view import Grid


@dataclass(frozen=True)
class StageReport:
    """One pruning point of one prompt.

    Attributes:
        layer: K. kept: for every unit of the scope (image, prompt, grid or tile) the sorted indices of the cells that
            enter layer K, counted in the unit's concatenated grids.
    """

    layer: int
    kept: tuple[Tensor, ...]


@dataclass(frozen=True)
class RowReport:
    """One prompt of the batch; the beams or returned sequences of a prompt share one report.

    Attributes:
        sample: the sample's id. initial: visual tokens before any pruning.
        entering: visual tokens entering each decoder layer.
        markers: placeholders without a token of their own, such as row ends, entering each layer; not in `entering`.
        units: what was decided about apart, and where it lies.
        tower: (t, h, w) of every image or tile in the vision tower's call; None if unknown.
        stages: the pruning points, in layer order.
        text: text tokens, which enter every layer. kv_bytes: what its keys and values take up in the KV cache once the
            prefill is over, padding not counted; None where the cache is no plain tensors, 0 without one.
    """

    sample: str
    initial: int
    entering: list[int]
    markers: list[int]
    units: tuple[TokenGroup, ...]
    tower: tuple[Grid, ...] | None
    stages: tuple[StageReport, ...]
    text: int
    kv_bytes: int | None

    @cached_property
    def encoded(self) -> tuple[Grid, ...]:
        """(t, h, w) of every image or tile the vision tower encoded for this prompt, as far as known."""
        origins = [unit.origins for unit in self.units if unit.origins is not None]
        if self.tower is None or not origins:
            return tuple(grid for unit in self.units for grid in unit.grids)
        return tuple(self.tower[i] for i in image_of(torch.cat(origins), self.tower).unique().tolist())

    @property
    def lengths(self) -> list[int]:
        """Tokens of any kind entering each decoder layer."""
        return [self.text + sum(visual) for visual in zip(self.entering, self.markers, strict=True)]

    @property
    def grids(self) -> tuple[tuple[Grid, ...], ...]:
        """(t, h, w) of every grid of every unit."""
        return tuple(unit.grids for unit in self.units)

    @property
    def average(self) -> float:
        """Visual tokens a decoder layer sees on average: what attention and MLP compute follow."""
        return sum(self.entering) / len(self.entering)

    @property
    def average_ratio(self) -> float:
        """`average` as a share of the initial tokens; 1 for a text-only prompt."""
        return self.average / self.initial if self.initial else 1.0


@dataclass(frozen=True)
class PrefillReport:
    """One prefill.

    Attributes:
        pruned: whether any layer saw fewer tokens than it would have without pruning. make: what `rows` is made by.
    """

    pruned: bool
    make: Callable[[], tuple[RowReport, ...]]

    @cached_property
    def rows(self) -> tuple[RowReport, ...]:
        """One report per prompt, made when it is first looked at: the time is not the prefill's."""
        return self.make()
