"""One prompt of a prefill: its images, its question, and the view a method gets of it at each stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.cache import KeptTokens
from uniprune.engine.compaction import Tokens, to_device
from uniprune.engine.report import StageReport
from uniprune.engine.token_map import TokenGroup
from uniprune.engine.views import Decision, UnitAttention, UnitEmbedded, choose, question
from uniprune.engine.vision import UnitVision, Vision
from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Stage
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import Later, View
from uniprune.utils.hashing import seeded_generator


@dataclass(frozen=True)
class PromptInfo:
    """Who a prompt is.

    Attributes:
        id: seeds the prompt's randomness, so that a result depends on neither batch nor order.
        question: [M] token ids of the bare question, what prompt-aware methods look at.
    """

    id: str
    question: Tensor | None = None


@dataclass(frozen=True)
class StageInput:
    """A batch as it arrives at a stage.

    Attributes:
        family: the model's layout.
        hidden: [B, n, D] with padding, on the layer's device. kept: which tokens these are.
        embeds: [B, L, D] what entered the language model. vision: the vision-tower call behind the images.
        tap: attention of the layer before, if captured. upcoming: of the layer about to run, if asked for.
    """

    family: ModelAdapter
    hidden: Tensor
    kept: KeptTokens
    embeds: Tensor
    vision: Vision | None
    tap: AttentionCapture | None
    upcoming: AttentionCapture | None = None


@dataclass
class Prompt:
    """One prompt during one prefill.

    Attributes:
        sample: who it is. row: its first batch row. units: what decisions are about.
        tokens: those of the batch. reports: one per stage so far.
    """

    sample: PromptInfo
    row: int
    units: list[TokenGroup]
    tokens: Tokens
    reports: list[StageReport] = field(default_factory=list)
    _scratch: dict[int, dict[str, Any]] = field(default_factory=dict)
    _first: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing has been pruned."""
        self._cells = [torch.arange(len(unit.ranks)) for unit in self.units]

    @property
    def cells(self) -> tuple[Tensor, ...]:
        """[N] for every unit, the sorted cells whose tokens have survived so far."""
        return tuple(self._cells)

    @property
    def survivors(self) -> Tensor:
        """[m] sorted positions of all tokens that have survived so far."""
        return self._alive.nonzero()[:, 0]

    @cached_property
    def placeholders(self) -> Tensor:
        """[P] positions of the prompt's visual placeholders."""
        return self.tokens.visual[self.row].nonzero()[:, 0]

    @cached_property
    def text(self) -> Tensor:
        """[T] positions of its text."""
        return self._text_mask.nonzero()[:, 0]

    @property
    def markers(self) -> Tensor:
        """[M] positions of placeholders that hold no visual token."""
        return self.placeholders[torch.cat([unit.markers for unit in self.units])]

    def question(self, special: list[int]) -> Tensor:
        """[M] positions of the question's tokens, none of which is among the `special` ids."""
        ids = None if self.tokens.ids is None else self.tokens.ids[self.row]
        text, first = self._text_mask, int(self.placeholders[0])
        return question(ids, text, first, self.sample.question, special)

    def embedded_question(self, arriving: StageInput) -> Tensor:
        """[M, D] input embeddings of the question."""
        if self.sample.question is None:
            positions = self.question(arriving.family.special_token_ids)
            return arriving.embeds[self.row, to_device(positions, arriving.embeds.device)]
        table = arriving.family.model.get_input_embeddings()
        return table(to_device(self.sample.question, table.weight.device))

    @torch.no_grad()
    def ask(self, stage: Stage, arriving: StageInput) -> list[Decision]:
        """Ask the stage's method once per unit, unless it keeps everything anyway."""
        choices = []
        for unit, cells in zip(self.units, self._cells, strict=True):
            first = self._first.setdefault((unit.ordinal, id(stage.pruner)), len(cells))
            keep = min(len(cells), keep_count(first, stage.ratio))
            if len(cells) and (keep < len(cells) or not stage.pruner.exact):
                view = self._view(stage, arriving, unit)
                choices.append(choose(stage, self.sample.id, unit.ordinal, view, keep))
        return choices

    def keep(self, stage: Stage, choices: Iterable[Decision]) -> list[tuple[Tensor, Tensor]]:
        """Of the units that were asked about only what was chosen survives; new tokens and their positions, if any.

        No method is asked about markers: they stay as long as their unit has a token left.
        """
        replaced = []
        for choice in choices:
            unit, before = self.units[choice.ordinal], self._positions(choice.ordinal)
            self._cells[choice.ordinal] = self._cells[choice.ordinal][choice.selection.indices]
            after = before[choice.selection.indices]
            self._alive[before] = False
            self._alive[after] = True
            if not len(after):
                self._alive[self.placeholders[unit.markers]] = False
            if choice.selection.tokens is not None:
                replaced.append((after, choice.selection.tokens))
        self.reports.append(StageReport(stage.layer, self.cells))
        return replaced

    @cached_property
    def _alive(self) -> Tensor:
        """[L] True at what has survived so far."""
        return self.tokens.real[self.row].clone()

    @cached_property
    def _text_mask(self) -> Tensor:
        """[L] True at text."""
        return self.tokens.real[self.row] & ~self.tokens.visual[self.row]

    def _positions(self, ordinal: int) -> Tensor:
        """[N] where the unit's surviving tokens stand in the un-pruned prompt."""
        return self.placeholders[self.units[ordinal].ranks[self._cells[ordinal]]]

    def _view(self, stage: Stage, arriving: StageInput, unit: TokenGroup) -> View:
        """What the method sees of the unit's surviving tokens."""
        family, kept = arriving.family, arriving.kept
        hidden, device = arriving.hidden[self.row], arriving.hidden.device
        visual, cells = self._positions(unit.ordinal), self._cells[unit.ordinal]

        def columns(positions: Tensor) -> Tensor:
            return kept.columns(positions, self.row)

        def attention(tap: AttentionCapture | None) -> UnitAttention:
            return UnitAttention(
                tap=tap,
                row=self.row,
                valid=kept.valid[self.row],
                visual=columns(visual),
                text=columns(self.text),
                prompt=lambda: columns(self.question(family.special_token_ids)),
            )

        view = View(
            tokens=hidden[to_device(columns(visual), device)],
            grids=list(unit.grids),
            cells=Later(lambda: to_device(cells, device)),
            layer=stage.layer,
            num_layers=len(family.layers),
            initial=len(unit.ranks),
            prompt=Later(lambda: self.embedded_question(arriving).to(device)),
            text=Later(lambda: hidden[to_device(columns(self.text), device)]),
            generator=Later(lambda: seeded_generator(stage.pruner.seed, self.sample.id, unit.ordinal, stage.layer)),
            attention=Later(lambda: attention(arriving.tap)),
            vision=UnitVision(arriving.vision, unit.origins, cells, device),
            scratch=self._scratch.setdefault(unit.ordinal, {}),
            after=Later(lambda: to_device((self.text > visual[-1]).nonzero()[:, 0], device)),
            upcoming=Later(lambda: attention(arriving.upcoming)),
            embedded=Later(lambda: UnitEmbedded(arriving.embeds[self.row], visual, self.text, device)),
            norm=family.final_norm,
        )
        if stage.pruner.needs_text and not len(view.prompt):
            raise UserError(
                f"{type(stage.pruner).__name__} needs the question, but sample {self.sample.id!r} has no text after "
                "its first image; set Sample.question or put the question after the image"
            )
        return view
