"""One prompt of a prefill: its token groups and survivors, and the view a method gets of a group at a stage."""

# mypy: disable-error-code="override"
# StageView computes fields of View lazily: cached_property can be set like a field, which mypy does not know.
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture, ViewAttention, ViewEmbedded
from uniprune.engine.checks import Decision, choose
from uniprune.engine.compaction import KeptTokens, to_device
from uniprune.engine.question import PromptInfo, question_positions
from uniprune.engine.report import StageReport
from uniprune.engine.token_groups import TokenGroup
from uniprune.engine.token_map import Tokens
from uniprune.engine.view_vision import ViewVision
from uniprune.engine.vision import Vision
from uniprune.errors import PruningError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Stage
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import View
from uniprune.utils.hashing import seeded_generator


@dataclass(frozen=True)
class StageInput:
    """A batch arriving at a stage; a snapshot, so that views stay valid when the prefill goes on.

    Attributes:
        stage: the pruning point.
        adapter: the model's adapter.
        hidden: [B, n, D] with padding, on the layer's device.
        kept: the tokens of `hidden`.
        embeds: [B, L, D] inputs of the language model.
        vision: the vision-tower call of the images, None if unknown.
        attention: of the layer before, if captured.
        upcoming: attention of the layer about to run, if the method declared it.
    """

    stage: Stage
    adapter: ModelAdapter
    hidden: Tensor
    kept: KeptTokens
    embeds: Tensor
    vision: Vision | None
    attention: AttentionCapture | None
    upcoming: AttentionCapture | None


@dataclass
class Prompt:
    """One prompt during one prefill.

    Attributes:
        info: the prompt's identity.
        row: its first batch row.
        groups: its token groups; one decision each.
        tokens: those of the batch.
        reports: one per stage so far.
    """

    info: PromptInfo
    row: int
    groups: list[TokenGroup]
    tokens: Tokens
    reports: list[StageReport] = field(default_factory=list)
    _scratch: dict[int, dict[str, Any]] = field(default_factory=dict)
    _first: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cells = [torch.arange(len(group.ranks)) for group in self.groups]

    @property
    def cells(self) -> tuple[Tensor, ...]:
        """[N] for every group, the sorted cells whose tokens have survived so far."""
        return tuple(self._cells)

    @property
    def survivors(self) -> Tensor:
        """[m] sorted positions of all tokens that have survived so far."""
        return self._alive.nonzero()[:, 0]

    @cached_property
    def placeholders(self) -> Tensor:
        """[P] positions of the visual placeholders."""
        return self.tokens.visual[self.row].nonzero()[:, 0]

    @cached_property
    def text(self) -> Tensor:
        """[T] positions of the text."""
        return self._text_mask.nonzero()[:, 0]

    @property
    def markers(self) -> Tensor:
        """[M] positions of placeholders that hold no visual token."""
        return self.placeholders[torch.cat([group.markers for group in self.groups])]

    def positions(self, group: TokenGroup) -> Tensor:
        """Return the positions [N] of the group's surviving tokens in the un-pruned prompt."""
        return self.placeholders[group.ranks[self._cells[group.ordinal]]]

    def scratch(self, group: TokenGroup) -> dict[str, Any]:
        """Return the dictionary that methods keep from stage to stage for a group."""
        return self._scratch.setdefault(group.ordinal, {})

    def question(self, special: list[int]) -> Tensor:
        """Return the positions [M] of the question's tokens.

        Without `PromptInfo.positions` they are searched for by `question_positions`, which leaves out `special` ids.

        Raises:
            UserError: `PromptInfo.positions` names tokens that the prompt does not have.
        """
        if self.info.positions is not None:
            return self.info.checked(self.tokens.real[self.row].nonzero()[:, 0])
        ids = None if self.tokens.ids is None else self.tokens.ids[self.row]
        return question_positions(ids, self._text_mask, int(self.placeholders[0]), self.info.question, special)

    @torch.no_grad()
    def decide(self, arriving: StageInput) -> list[Decision]:
        """Call the stage's method once per group, unless everything is kept anyway."""
        stage, decisions = arriving.stage, []
        for group, cells in zip(self.groups, self._cells, strict=True):
            first = self._first.setdefault((group.ordinal, id(stage.pruner)), len(cells))
            keep = min(len(cells), keep_count(first, stage.ratio))
            if len(cells) and (keep < len(cells) or not stage.pruner.exact):
                view = StageView(arriving, self, group)
                if stage.pruner.needs_text and not len(view.prompt):
                    raise UserError(
                        f"{type(stage.pruner).__name__} needs the question, but sample {self.info.id!r} has no text "
                        "after its first image; set PromptInfo.question or put the question after the image"
                    )
                decisions.append(choose(stage, self.info.id, group.ordinal, view, keep))
        return decisions

    def apply(self, layer: int, decisions: Iterable[Decision]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Drop what the decisions at `layer` did not select; groups without a decision keep everything.

        Markers are not up for selection: they stay as long as their group has a token left.

        Returns:
            Positions, those the replacement tokens were chosen from, and these tokens, of every decision that has some.
        """
        replaced = []
        for decision in decisions:
            number, selection = decision.ordinal, decision.selection
            before = self.positions(self.groups[number])
            after = before[selection.indices]
            self._cells[number] = self._cells[number][selection.indices]
            self._alive[before] = False
            self._alive[after] = True
            if not len(after):
                self._alive[self.placeholders[self.groups[number].markers]] = False
            if selection.tokens is not None:
                replaced.append((after, before[decision.sources], selection.tokens))
        self._check_count(layer)
        self.reports.append(StageReport(layer, self.cells))
        return replaced

    def _check_count(self, layer: int) -> None:
        """Require as many tokens in the sequence as were chosen.

        Raises:
            PruningError: something wrote into the engine's bookkeeping.
        """
        chosen = sum(map(len, self._cells))
        markers = sum(len(group.markers) for group, cells in zip(self.groups, self._cells, strict=True) if len(cells))
        left = int(self._alive[self.placeholders].sum()) - markers
        if left != chosen:
            raise PruningError(
                f"at layer {layer}, sample {self.info.id!r}: {chosen} visual tokens were chosen, but {left} are left; "
                "the method changed what the engine counts tokens by"
            )

    @cached_property
    def _alive(self) -> Tensor:
        """[L] True at tokens that have survived so far."""
        return self.tokens.real[self.row].clone()

    @cached_property
    def _text_mask(self) -> Tensor:
        """[L] True at text."""
        return self.tokens.real[self.row] & ~self.tokens.visual[self.row]


class StageView(View):
    """The view of a group's surviving tokens at a stage; most attributes are computed when they are first read.

    Every tensor is the view's own copy: what a method writes into one changes nothing outside the view.
    """

    def __init__(self, arriving: StageInput, prompt: Prompt, group: TokenGroup) -> None:
        adapter, cells = arriving.adapter, prompt.cells[group.ordinal]
        self._arriving, self._prompt, self._group, self._cells = arriving, prompt, group, cells
        self._device, self._positions = arriving.hidden.device, prompt.positions(group)
        self.tokens = self._hidden(self._positions)
        self.grids, self.initial = list(group.grids), len(group.ranks)
        self.layer, self.num_layers = arriving.stage.layer, len(adapter.layers)
        self.vision = ViewVision(arriving.vision, group.origins, cells.clone(), self._device)
        self.scratch, self.norm = prompt.scratch(group), adapter.final_norm

    @cached_property
    def cells(self) -> Tensor:
        """See `View`, as for all attributes here."""
        return to_device(self._cells.clone(), self._device)  # a copy on the CPU, too

    @cached_property
    def prompt(self) -> Tensor:
        """The question's tokens in this prompt, or those of `PromptInfo.question`, which are cut as without context."""
        self._text()
        asked = self._prompt.info.question
        if asked is None or not len(asked):
            embeds, positions = self._arriving.embeds, self._question()
            return embeds[self._prompt.row, to_device(positions, embeds.device)].to(self._device)
        table = self._arriving.adapter.model.get_input_embeddings()
        embedded: Tensor = table(to_device(asked, table.weight.device))
        return embedded.to(self._device)

    @cached_property
    def text(self) -> Tensor:
        """[T, D]."""
        return self._hidden(self._text())

    @cached_property
    def generator(self) -> torch.Generator:
        """On the CPU."""
        stage = self._arriving.stage
        return seeded_generator(stage.pruner.seed, self._prompt.info.id, self._group.ordinal, stage.layer)

    @cached_property
    def attention(self) -> ViewAttention:
        """Of layer K - 1."""
        return self._attention(self._arriving.attention)

    @cached_property
    def upcoming(self) -> ViewAttention:
        """Of layer K."""
        return self._attention(self._arriving.upcoming)

    @cached_property
    def after(self) -> Tensor:
        """[F]."""
        return to_device((self._text() > self._positions[-1]).nonzero()[:, 0], self._device)

    @cached_property
    def embedded(self) -> ViewEmbedded:
        """Inputs of layer 0."""
        embeds = self._arriving.embeds[self._prompt.row]
        return ViewEmbedded(embeds, self._positions, self._text, self._device)

    def _columns(self, positions: Tensor) -> Tensor:
        """Return the current columns of un-pruned positions."""
        return self._arriving.kept.columns(positions, self._prompt.row)

    def _hidden(self, positions: Tensor) -> Tensor:
        """Return the hidden states [m, D] at un-pruned positions."""
        return self._arriving.hidden[self._prompt.row][to_device(self._columns(positions), self._device)]

    def _text(self) -> Tensor:
        """Return the positions [T] of the text; a PruningError for a method that has not declared that it reads it."""
        pruner = self._arriving.stage.pruner
        if not pruner.prompt_aware:
            raise PruningError(
                f"{type(pruner).__name__} reads text of the prompt, or attention from it, so its choice depends on the "
                "question; set prompt_aware = True in its class"
            )
        return self._prompt.text

    def _question(self) -> Tensor:
        """Return the positions [M] of the question's tokens."""
        self._text()
        return self._prompt.question(self._arriving.adapter.special_token_ids)

    def _attention(self, captured: AttentionCapture | None) -> ViewAttention:
        """Return the attention on demand of a captured layer."""
        return ViewAttention(
            captured=captured,
            row=self._prompt.row,
            valid=self._arriving.kept.valid[self._prompt.row].clone(),
            visual=self._columns(self._positions),
            text=lambda: self._columns(self._text()),
            prompt=lambda: self._columns(self._asking()),
        )

    def _asking(self) -> Tensor:
        """Return the positions [M] of the question's tokens, of which there must be some."""
        positions = self._question()
        if not len(positions):
            raise UserError(
                f"the method reads attention from the question, but sample {self._prompt.info.id!r} has no text after "
                "its first image; set PromptInfo.positions or put the question after the image"
            )
        return positions
