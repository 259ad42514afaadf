"""Reports of a prefill, measured from tensor shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from uniprune.engine.attended_pairs import AttendedPairs
from uniprune.engine.compaction import CachedLayer, HeldLayer, cached_layers
from uniprune.engine.kept_tokens import KeptTokens, active
from uniprune.engine.token_groups import TokenGroup, image_of
from uniprune.modeling.origins import Origins
from uniprune.modeling.tower_work import TowerWork
from uniprune.pruning.view import Grid

if TYPE_CHECKING:
    from uniprune.engine.batch import Batch
    from uniprune.engine.prompt import Prompt


@dataclass(frozen=True)
class StageReport:
    """One pruning point of one prompt.

    Attributes:
        layer: K.
        kept: for every token group (image, prompt, grid or tile) the sorted indices of the cells that enter layer K,
            counted in the group's concatenated grids.
    """

    layer: int
    kept: tuple[Tensor, ...]


@dataclass(frozen=True)
class RowReport:
    """One prompt of the batch; the beams or returned sequences of a prompt share one report.

    Attributes:
        sample: the sample's id.
        initial: visual tokens before any pruning.
        entering: visual tokens entering each decoder layer.
        markers: placeholders without a token of their own, such as row ends, entering each layer; not in `entering`.
        groups: token groups that were pruned separately, with their placement.
        tower: (t, h, w) of every image or tile in the vision tower's call; None if unknown.
        tower_work: the tower's work on each of these; None if it dropped nothing or is unknown.
        stages: the pruning points, in layer order.
        text: text tokens, which enter every layer.
        tokens: tokens of the un-pruned prompt.
        positions: positions that the un-pruned prompt takes; the first generated token has the next one. Fewer than
            its tokens where an image's rows or columns share one.
        pairs: pairs of tokens that attend to each other in each decoder layer; a token counts half with itself.
        kv_bytes: bytes of its keys and values in the KV cache after the prefill, padding not counted, and of the states
            of linear attention, which have one size however many tokens they took in. Windowed layers hold their last
            tokens only. None if the cache is not plain tensors, 0 without a cache.
    """

    sample: str
    initial: int
    entering: list[int]
    markers: list[int]
    groups: tuple[TokenGroup, ...]
    tower: tuple[Grid, ...] | None
    tower_work: tuple[TowerWork, ...] | None
    stages: tuple[StageReport, ...]
    text: int
    tokens: int
    positions: int
    pairs: list[float]
    kv_bytes: int | None

    @cached_property
    def encoded(self) -> tuple[Grid, ...]:
        """(t, h, w) of every image or tile the vision tower encoded for this prompt, as far as known."""
        if self.tower is None or not self._sources:
            return tuple(grid for group in self.groups for grid in group.grids)
        return tuple(self.tower[i] for i in self._sources)

    @property
    def work(self) -> tuple[TowerWork, ...] | None:
        """The tower's work on each of `encoded`; None if it dropped nothing or is unknown."""
        return None if self.tower_work is None else tuple(self.tower_work[i] for i in self._sources)

    @cached_property
    def _sources(self) -> list[int]:
        """Numbers of the images or tiles of the tower's call that this prompt's tokens are made of."""
        origins = [group.origins for group in self.groups if group.origins is not None]
        if self.tower is None or not origins:
            return []
        numbers: list[int] = image_of(Origins.joined(origins).index, self.tower).unique().tolist()
        return numbers

    @property
    def lengths(self) -> list[int]:
        """Tokens of any kind entering each decoder layer."""
        return [self.text + sum(visual) for visual in zip(self.entering, self.markers, strict=True)]

    @property
    def prefill(self) -> tuple[tuple[Grid, ...], list[int], list[float], int, tuple[TowerWork, ...] | None]:
        """Arguments of `uniprune.modeling.flops.CostModel.prompt`."""
        return self.encoded, self.lengths, self.pairs, self.tokens, self.work

    @property
    def grids(self) -> tuple[tuple[Grid, ...], ...]:
        """(t, h, w) of every grid of every group."""
        return tuple(group.grids for group in self.groups)

    @property
    def average(self) -> float:
        """Visual tokens per decoder layer on average, which attention and MLP compute follow."""
        return sum(self.entering) / len(self.entering)

    @property
    def average_ratio(self) -> float:
        """`average` as a share of the initial tokens; 1 for a text-only prompt."""
        return self.average / self.initial if self.initial else 1.0


@dataclass(frozen=True)
class PrefillReport:
    """One prefill. Holds no tensor of a layer and nothing of the model.

    Attributes:
        batch: the prompts.
        layers: the scheduled pruning points.
        widths: columns that entered each decoder layer.
        kept: the tokens left by each stage that pruned.
        cached: the same in the KV cache.
        held: shapes of each layer of the cache.
        pairs: counts the pairs of tokens that attend to each other.
        next_position: [..., B or 1, 1] position of the first generated token, on the model's device.
    """

    batch: Batch
    layers: tuple[int, ...]
    widths: list[int]
    kept: list[KeptTokens]
    cached: list[KeptTokens]
    held: list[HeldLayer]
    pairs: AttendedPairs
    next_position: Tensor

    @property
    def pruned(self) -> bool:
        """Return whether any layer had fewer tokens than without pruning."""
        return bool(self.kept)

    @cached_property
    def rows(self) -> tuple[RowReport, ...]:
        """One report per prompt, made when first read: the time is not the prefill's."""
        return tuple(map(self._row, self.batch.prompts))

    @cached_property
    def sizes(self) -> list[CachedLayer] | None:
        """Of each layer of the cache, None if unknown."""
        return cached_layers(self.held)

    @cached_property
    def _positions(self) -> list[int]:
        """The position of each row's first generated token, the same on every axis."""
        ends = self.next_position[..., 0]
        last_axis = ends.reshape(-1, ends.shape[-1])[-1]
        positions: list[int] = last_axis.expand(len(self.batch.tokens.real)).tolist()
        return positions

    def _row(self, prompt: Prompt) -> RowReport:
        tokens, row = self.batch.tokens, prompt.row
        text = tokens.unpruned.lengths[row] - tokens.visual_counts[row]
        initial = sum(len(group.ranks) for group in prompt.groups)
        has_markers = initial < tokens.visual_counts[row]
        entering, markers, pairs = [], [], []
        for layer, width in enumerate(self.widths):
            kept = active(self.kept, layer) or tokens.unpruned
            pairs.append(self.pairs.count(layer, kept, row))
            left = kept.index[row, kept.valid[row]] if has_markers else None
            markers.append(0 if left is None else int(np.isin(left, prompt.markers).sum()))
            entering.append(width - (kept.width - kept.lengths[row]) - text - markers[-1])
        return RowReport(
            sample=prompt.info.id,
            initial=initial,
            entering=entering,
            markers=markers,
            groups=tuple(prompt.groups),
            tower=None if self.batch.grids is None else tuple(self.batch.grids),
            tower_work=None if self.batch.work is None else tuple(self.batch.work),
            stages=tuple(prompt.reports) or self._skipped(prompt),
            text=text,
            tokens=tokens.unpruned.lengths[row],
            positions=self._positions[row],
            pairs=pairs,
            kv_bytes=self._kv_bytes(row),
        )

    def _skipped(self, prompt: Prompt) -> tuple[StageReport, ...]:
        """Return the reports of stages that were not run, because everything was kept."""
        return tuple(StageReport(layer, prompt.kept) for layer in self.layers if self.batch.has_images)

    def _kv_bytes(self, row: int) -> int | None:
        if self.sizes is None:
            return None
        held = (active(self.cached, layer) or self.batch.tokens.unpruned for layer in range(len(self.sizes)))
        pairs = zip(self.sizes, held, strict=True)
        return sum(size.token * min(kept.lengths[row], size.columns) + size.state for size, kept in pairs)
