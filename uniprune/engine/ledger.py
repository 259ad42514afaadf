"""A prefill in numbers on the host: what its prompts consist of, what survives, and what entered every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from uniprune.engine.cache import KeptTokens, active
from uniprune.engine.compaction import Tokens
from uniprune.engine.prompt import Prompt, PromptInfo
from uniprune.engine.report import RowReport, StageReport
from uniprune.engine.token_map import image_units, scoped
from uniprune.modeling.adapter import ImageLayout
from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.view import Grid


class Ledger:
    """What one prefill's report is made of, and what its stages work on.

    Nothing is read before somebody asks: a prefill that cannot prune costs no transfer and no arithmetic. No tensor of
    a layer is held, and nothing of the model, so reports may be kept.

    Args:
        tiled: whether one image may be several tiles. pruner, stages: the method and its pruning points.
        samples: one per prompt, or none. read: brings the batch's tokens to the host.

    Attributes:
        copies: rows per prompt. grids: (t, h, w) of what the tower encoded. pictures: as they lie in the prompts; both
            None if unknown.
        widths: columns that entered each layer. kept: what each stage that pruned left.
        cached: the same as the KV cache holds it. sizes: bytes of a token in each of its layers, None if unknown.
    """

    def __init__(
        self,
        tiled: bool,
        pruner: Pruner,
        stages: Sequence[Stage],
        samples: tuple[PromptInfo, ...],
        read: Callable[[], Tokens],
    ) -> None:
        self.tiled, self.pruner, self.stages, self.samples, self._read = tiled, pruner, stages, samples, read
        self.copies = 1
        self.grids: list[Grid] | None = None
        self.pictures: list[ImageLayout] | None = None
        self.widths: list[int] = []
        self.kept: list[KeptTokens] = []
        self.cached: list[KeptTokens] = []
        self.sizes: list[int] | None = None

    @cached_property
    def tokens(self) -> Tokens:
        """What the batch consists of."""
        return self._read()

    @cached_property
    def visual_counts(self) -> list[int]:
        """Visual placeholders of every row."""
        counts: list[int] = self.tokens.visual.sum(1).tolist()
        return counts

    @cached_property
    def whole(self) -> KeptTokens:
        """The un-pruned batch."""
        batch, width = self.tokens.real.shape
        lengths = tuple(self.tokens.real.sum(1).tolist())
        return KeptTokens(0, torch.arange(width).repeat(batch, 1), self.tokens.real, lengths)

    @property
    def now(self) -> KeptTokens:
        """What has survived all stages so far."""
        return self.kept[-1] if self.kept else self.whole

    @property
    def has_images(self) -> bool:
        """Whether there is anything to prune."""
        return any(self.visual_counts)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """One per `copies` rows.

        Raises:
            UnsupportedError: the encoded images do not fill the placeholders.
        """
        pictures = self.pictures if self.has_images else None
        units = image_units(self.tokens.visual, pictures, self.tiled)
        rows = range(0, len(units), self.copies)
        samples = self.samples or tuple(PromptInfo(str(i)) for i in range(len(rows)))
        return [
            Prompt(sample, row, scoped(units[row], self.pruner.scope, self.grids), self.tokens)
            for row, sample in zip(rows, samples, strict=True)
        ]

    def rows(self) -> tuple[RowReport, ...]:
        """One report per prompt."""
        return tuple(map(self._row, self.prompts))

    def _untouched(self, prompt: Prompt) -> tuple[StageReport, ...]:
        """What to say of stages that were not asked about a prompt, as they keep everything."""
        return tuple(StageReport(stage.layer, prompt.cells) for stage in self.stages if self.has_images)

    def _row(self, prompt: Prompt) -> RowReport:
        row = prompt.row
        text = self.whole.lengths[row] - self.visual_counts[row]
        initial = sum(len(unit.ranks) for unit in prompt.units)
        marked = initial < self.visual_counts[row]
        entering, markers = [], []
        for layer, width in enumerate(self.widths):
            kept = active(self.kept, layer) or self.whole
            left = kept.index[row, kept.valid[row]] if marked else None
            markers.append(0 if left is None else int(torch.isin(left, prompt.markers).sum()))
            entering.append(width - (kept.index.shape[1] - kept.lengths[row]) - text - markers[-1])
        held = None
        if self.sizes is not None:
            held = sum(
                n * (active(self.cached, layer) or self.whole).lengths[row] for layer, n in enumerate(self.sizes)
            )
        return RowReport(
            sample=prompt.sample.id,
            initial=initial,
            entering=entering,
            markers=markers,
            units=tuple(prompt.units),
            tower=None if self.grids is None else tuple(self.grids),
            stages=tuple(prompt.reports) or self._untouched(prompt),
            text=text,
            kv_bytes=held,
        )
