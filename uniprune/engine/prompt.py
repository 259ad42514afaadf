"""One prompt of a prefill: its images, its question, and the view a method gets of it at each stage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uniprune.budget import keep_count
from uniprune.engine.attention import DecoderTap
from uniprune.engine.images import Unit
from uniprune.engine.report import StageReport
from uniprune.engine.views import UnitAttention, UnitEmbedded, choose, generator, question_mask
from uniprune.engine.vision import UnitVision, Vision, image_of
from uniprune.errors import UserError
from uniprune.family import Family
from uniprune.pruner import Stage
from uniprune.view import Grid, View


@dataclass(frozen=True)
class Sample:
    """Who a prompt is.

    Attributes:
        id: seeds the prompt's randomness, so that a result depends on neither batch nor order.
        question: [M] token ids of the bare question, what prompt-aware methods look at.
    """

    id: str
    question: Tensor | None = None


@dataclass(frozen=True)
class Arriving:
    """A prompt's sequence as it arrives at a stage.

    Attributes:
        hidden: [n, D] with padding, on the layer's device; everything else stays on the inputs' device.
        valid: [n] False at padding. index: [n] positions in the un-pruned prompt.
        tap: attention of the layer before, if captured. upcoming: of the layer about to run, if asked for.
    """

    hidden: Tensor
    valid: Tensor
    index: Tensor
    tap: DecoderTap | None
    upcoming: DecoderTap | None = None

    @cached_property
    def columns(self) -> Tensor:
        """[m] where the valid tokens are."""
        return self.valid.nonzero()[:, 0]


@dataclass(frozen=True)
class Survivors:
    """What a prompt keeps at a stage.

    Attributes:
        columns: sorted columns of the arriving sequence. replaced: (columns, new tokens) of merging methods.
    """

    columns: Tensor
    replaced: tuple[tuple[Tensor, Tensor], ...]


@dataclass
class Prompt:
    """One prompt during one prefill.

    Attributes:
        family: the model's layout. sample: who it is. row: its first batch row. units: what decisions are about.
        ids: [L] input ids or None. embeds: [L, D] what entered the language model. visual, real: [L] masks of visual
        placeholders and of non-padding tokens. vision: the vision-tower call behind its images.
        reports: one per stage so far.
    """

    family: Family
    sample: Sample
    row: int
    units: list[Unit]
    ids: Tensor | None
    embeds: Tensor
    visual: Tensor
    real: Tensor
    vision: Vision | None
    reports: list[StageReport] = field(default_factory=list)
    _scratch: dict[int, dict[str, Any]] = field(default_factory=dict)
    _first: dict[tuple[int, int], int] = field(default_factory=dict)

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """[L] unit of every position, -1 at text, and [L] its cell there, -1 at markers and text."""
        unit_of, cell_of = torch.full((2, len(self.visual)), -1)
        placeholders = self.visual.cpu().nonzero()[:, 0]
        for unit in self.units:
            cells = placeholders[unit.ranks]
            cell_of[cells] = torch.arange(len(cells))
            unit_of[cells] = unit_of[placeholders[unit.markers]] = unit.ordinal
        return unit_of.to(self.visual.device), cell_of.to(self.visual.device)

    @cached_property
    def markers(self) -> Tensor:
        """[L] True at placeholders that hold no visual token."""
        unit_of, cell_of = self.places
        return (unit_of >= 0) & (cell_of < 0)

    @property
    def encoded(self) -> tuple[Grid, ...]:
        """(t, h, w) of every image or tile the vision tower encoded for this prompt, as far as known."""
        origins = [unit.origins for unit in self.units if unit.origins is not None]
        if self.vision is None or not origins:
            return tuple(grid for unit in self.units for grid in unit.grids)
        return tuple(self.vision.grids[i] for i in image_of(torch.cat(origins), self.vision.grids).unique().tolist())

    @cached_property
    def question(self) -> Tensor:
        """[L] True at the question's tokens."""
        first = int(self.visual.int().argmax())
        special = self.family.special_token_ids
        return question_mask(self.ids, self.real & ~self.visual, first, self.sample.question, special)

    @cached_property
    def embedded_question(self) -> Tensor:
        """[M, D] input embeddings of the question."""
        if self.sample.question is None:
            return self.embeds[self.question.to(self.embeds.device)]
        table = self.family.model.get_input_embeddings()
        return table(self.sample.question.to(table.weight.device))

    @torch.no_grad()
    def decide(self, stage: Stage, arriving: Arriving) -> Survivors:
        """Ask the stage's method once per unit, unless it keeps everything anyway.

        No method is asked about markers: they stay as long as their unit has a token left.
        """
        original = arriving.index[arriving.columns]
        unit_of, cell_of = (places[original] for places in self.places)
        alive, kept, replaced = unit_of < 0, [], []
        for unit in self.units:
            whole = unit_of == unit.ordinal
            mine = (whole & (cell_of >= 0)).nonzero()[:, 0]
            first = self._first.setdefault((unit.ordinal, id(stage.pruner)), len(mine))
            keep = min(len(mine), keep_count(first, stage.ratio))
            if len(mine) and (keep < len(mine) or not stage.pruner.exact):
                columns = arriving.columns[mine]
                view = self._view(stage, arriving, unit, columns, cell_of[mine])
                selection = choose(stage, self.sample.id, view, keep)
                chosen = selection.indices.to(mine.device)
                if selection.tokens is not None:
                    replaced.append((columns[chosen], selection.tokens))
                mine = mine[chosen]
            alive[mine] = True
            if len(mine):
                alive |= whole & (cell_of < 0)
            kept.append(cell_of[mine])
        self.reports.append(StageReport(stage.layer, tuple(kept)))
        return Survivors(arriving.columns[alive], tuple(replaced))

    def _view(self, stage: Stage, arriving: Arriving, unit: Unit, columns: Tensor, cells: Tensor) -> View:
        """What the method sees of the unit's surviving tokens, which are at `columns` and `cells` [N]."""
        if stage.pruner.needs_text and not len(self.embedded_question):
            raise UserError(
                f"{type(stage.pruner).__name__} needs the question, but sample {self.sample.id!r} has no text after "
                "its first image; set Sample.question or put the question after the image"
            )
        hidden, original = arriving.hidden, arriving.index[arriving.columns]
        text = arriving.columns[~self.visual[original]]
        attention = UnitAttention(
            tap=arriving.tap,
            row=self.row,
            valid=arriving.valid,
            visual=columns,
            text=text,
            prompt=lambda: arriving.columns[self.question[original]],
        )
        return View(
            tokens=hidden[columns.to(hidden.device)],
            grids=list(unit.grids),
            cells=cells.to(hidden.device),
            layer=stage.layer,
            num_layers=len(self.family.layers),
            initial=len(unit.ranks),
            prompt=self.embedded_question.to(hidden.device),
            text=hidden[text.to(hidden.device)],
            generator=generator(stage.pruner.seed, self.sample.id, unit.ordinal, stage.layer),
            attention=attention,
            vision=UnitVision(self.vision, unit.origins, cells.to(hidden.device)),
            scratch=self._scratch.setdefault(unit.ordinal, {}),
            after=(text > columns[-1]).nonzero()[:, 0].to(hidden.device),
            upcoming=replace(attention, tap=arriving.upcoming),
            embedded=UnitEmbedded(self.embeds, arriving.index[columns], arriving.index[text], hidden.device),
            norm=self.family.final_norm,
        )
