"""The views that a method gets of token groups at a stage: of one group, and of many of one size."""

# mypy: disable-error-code="override"
# Fields of View are computed lazily: cached_property can be set like a field, which mypy does not know.
from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.host_copy import sent, to_device
from uniprune.engine.kept_tokens import Ints
from uniprune.engine.stage_groups import StageGroups
from uniprune.engine.token_groups import image_tiles
from uniprune.engine.view_attention import GroupsAttention, ViewAttention, ViewEmbedded
from uniprune.engine.view_vision import GroupsVision, ViewVision
from uniprune.errors import PruningError, UserError
from uniprune.pruning.view import Tiles, View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.utils.hashing import seeded_generator


class StageView(View):
    """The view of a group's surviving tokens at a stage; most attributes are computed when they are first read.

    Every tensor is the view's own copy: what a method writes into one changes nothing outside the view.

    Args:
        groups: groups of one size.
        number: the view's own among them.
    """

    def __init__(self, groups: StageGroups, number: int) -> None:
        self._groups, self._number, self._arriving = groups, number, groups.arriving
        self._prompt, self._group = groups.members[number]
        self._device, adapter = self._arriving.device, self._arriving.adapter
        self.grids, self.initial = list(self._group.grids), len(self._group.ranks)
        self.layer, self.num_layers = self._arriving.stage.layer, len(adapter.layers)
        self.vision: ViewVision = ViewVision(groups, number)
        self.scratch, self.norm = self._prompt.scratch(self._group), adapter.final_norm

    @property
    def total(self) -> int:
        """See `View`, as for all attributes here."""
        return self._groups.total

    @cached_property
    def tokens(self) -> Tensor:
        """[N, D]."""
        return self._arriving.flat[self._groups.columns[self._number]]

    @cached_property
    def cells(self) -> Tensor:
        """[N]."""
        return self._groups.cells[self._number].clone()

    @cached_property
    def tiles(self) -> Tiles | None:
        """Of the tokens that are left."""
        vision = self._arriving.vision
        whole = image_tiles(self._group, vision.grids if vision else (), self._arriving.adapter.overview)
        if whole is None:
            return None
        known = self._groups.source_cells
        cells = self.cells.cpu() if known is None else torch.from_numpy(known[self._number])
        return Tiles(whole.of[cells], whole.overview)

    @cached_property
    def prompt(self) -> Tensor:
        """The question's tokens in this prompt, or those of `PromptInfo.question`, which are cut as without context."""
        if self.given is None:
            return self._embedded(self.asked)
        table = self._arriving.adapter.model.get_input_embeddings()
        embedded: Tensor = table(to_device(self.given, table.weight.device))
        return embedded.to(self._device)

    @cached_property
    def seen(self) -> list[Tensor]:
        """[N, ...] per look so far."""
        return [rows[self._number].clone() for rows in self._groups.seen]

    @property
    def sample(self) -> str:
        """Id of the prompt."""
        return self._prompt.info.id

    @property
    def offset(self) -> int:
        """Number of the prompt's visual tokens, before any pruning, in groups before this one."""
        return sum(len(group.ranks) for group in self._prompt.groups[: self._group.ordinal])

    @property
    def asks(self) -> bool:
        """Return whether there is a question, without reading its embeddings."""
        return self.given is not None or len(self.asked) > 0

    @property
    def given(self) -> Tensor | None:
        """[M] ids of the question, if it was given by them."""
        self._text()
        asked = self._prompt.info.question
        return asked if asked is not None and len(asked) else None

    @cached_property
    def text(self) -> Tensor:
        """[T, D]."""
        return self._arriving.flat[self._columns(self._text())]

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
        text = self._text()
        every = self._prompt.positions_of(self._group, np.arange(self.initial))
        before = np.searchsorted(text, every[[0, -1]])
        last = every[-1] if before[0] == before[1] else self._last  # text inside the group may be after all survivors
        return sent(np.arange(np.searchsorted(text, last), len(text)), self._device)

    @property
    def _last(self) -> int:
        """Position of the last surviving token; waits for a choice that was made on the device."""
        return int(self._prompt.positions_of(self._group, self._prompt.cells[self._group.ordinal])[-1])

    @cached_property
    def embedded(self) -> ViewEmbedded:
        """Inputs of layer 0."""
        return ViewEmbedded(self._embedded_tokens, lambda: self._embedded(self._text()))

    def _embedded_tokens(self) -> Tensor:
        """Return [N, D] what entered layer 0 of the view's tokens, also of those that took other places since."""
        embeds = self._arriving.embeds
        positions = to_device(self._groups.sources[self._number], embeds.device)
        return embeds.flatten(0, 1)[positions].to(self._device)

    def _embedded(self, positions: Ints) -> Tensor:
        """Return the inputs of layer 0 at un-pruned positions [m] of this prompt."""
        embeds = self._arriving.embeds
        return embeds[self._prompt.row, sent(positions, embeds.device)].to(self._device)

    def _columns(self, positions: Ints) -> Tensor:
        """Return the current columns of un-pruned positions of this prompt, counted through the batch."""
        now = self._arriving.now
        return now.columns(self._prompt.row * now.length + positions, self._device)

    def _local(self, positions: Ints) -> Tensor:
        """Return the same, counted in the prompt's row."""
        start = self._prompt.row * self._arriving.now.kept.width
        return self._columns(positions) - start if start else self._columns(positions)

    def _text(self) -> Ints:
        """Return the positions [T] of the text; a PruningError for a method that has not declared that it reads it."""
        pruner = self._arriving.stage.pruner
        if not pruner.prompt_aware:
            raise PruningError(
                f"{type(pruner).__name__} reads text of the prompt, or attention from it, so its choice depends on the "
                "question; set prompt_aware = True in its class"
            )
        return self._prompt.text

    @cached_property
    def asked(self) -> Ints:
        """[M] positions of the question's tokens."""
        self._text()
        return self._prompt.question(self._arriving.adapter.special_token_ids)

    def _attention(self, captured: AttentionCapture | None) -> ViewAttention:
        """Return the attention on demand of a captured layer."""
        groups, number, row, now = self._groups, self._number, self._prompt.row, self._arriving.now

        def valid() -> Tensor | None:
            whole = now.valid(self._device)
            return None if whole is None else whole[row]

        return ViewAttention(
            captured,
            row,
            valid,
            lambda: groups.local[number],
            lambda: self._local(self._text()),
            lambda: self._local(self._asking()),
            lambda: sent(now.kept.last_columns[[row]], self._device),
            self._text,
        )

    def _asking(self) -> Ints:
        """Return the positions [M] of the question's tokens, of which there must be some."""
        positions = self.asked
        if not len(positions):
            raise UserError(
                f"the method reads attention from the question, but sample {self._prompt.info.id!r} has no text after "
                "its first image; set PromptInfo.positions or put the question after the image"
            )
        return positions


class StageBatch(ViewBatch):
    """The views of groups of one size: most quantities are gathered for all of them at once.

    Args:
        groups: the groups.
        views: one of each.
    """

    def __init__(self, groups: StageGroups, views: Sequence[StageView]) -> None:
        self.views, self._stage_views, self._groups = tuple(views), tuple(views), groups

    @cached_property
    def tokens(self) -> Tensor:
        """See `ViewBatch`, as for all attributes here."""
        return self._groups.tokens

    @cached_property
    def cells(self) -> Tensor:
        """[P, N]."""
        return self._groups.cells.clone()

    @cached_property
    def prompt(self) -> list[Tensor]:
        """[M, D] per view."""
        arriving = self._groups.arriving
        given = [view.given for view in self._stage_views]
        ids = [one for one in given if one is not None]
        if len(ids) == len(given):
            table = arriving.adapter.model.get_input_embeddings()
            sizes, found = list(map(len, ids)), table(to_device(torch.cat(ids), table.weight.device))
        elif ids:
            return [view.prompt for view in self._stage_views]
        else:
            asked = [view.asked for view in self._stage_views]
            places = [row * arriving.now.length + own for row, own in zip(self._groups.rows, asked, strict=True)]
            flat = sent(np.concatenate(places), arriving.embeds.device)
            sizes, found = list(map(len, asked)), arriving.embeds.flatten(0, 1)[flat]
        return list(found.to(arriving.device).split(sizes))

    @cached_property
    def text(self) -> list[Tensor]:
        """[T, D] per view."""
        arriving, own = self._groups.arriving, [view._text() for view in self._stage_views]
        places = [row * arriving.now.length + text for row, text in zip(self._groups.rows, own, strict=True)]
        columns = arriving.now.columns(np.concatenate(places), arriving.device)
        return list(arriving.flat[columns].split(list(map(len, own))))

    @cached_property
    def seen(self) -> list[Tensor]:
        """[P, N, ...] per look so far."""
        return [rows.clone() for rows in self._groups.seen]

    @cached_property
    def vision(self) -> GroupsVision:
        """Quantities of the vision tower."""
        return GroupsVision(self._groups, [view.vision for view in self._stage_views])

    @cached_property
    def attention(self) -> GroupsAttention:
        """Attention of layer K - 1."""
        return GroupsAttention([view.attention for view in self._stage_views], self._groups)

    @cached_property
    def upcoming(self) -> GroupsAttention:
        """Attention of layer K."""
        return GroupsAttention([view.upcoming for view in self._stage_views], self._groups)
