"""One prompt of a prefill: its token groups and which of their tokens survive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.host_copy import sent
from uniprune.engine.kept_tokens import Bools, Ints, Source
from uniprune.engine.question import PromptInfo, question_positions
from uniprune.engine.report import StageReport
from uniprune.engine.token_groups import TokenGroup
from uniprune.engine.token_map import Tokens
from uniprune.errors import PruningError
from uniprune.pruning.base import Stage
from uniprune.pruning.budget import keep_count


@dataclass(frozen=True, eq=False)
class Survivors:
    """Tokens of P groups that were chosen on a device, [P, k] each, ascending.

    Attributes:
        cells: cells of the groups' grids.
        listed: their un-pruned positions, counted through the batch; None if these are `firsts` + `cells`.
        firsts: [P, 1] position of every group's first cell, or None.
    """

    cells: Tensor
    listed: Tensor | None
    firsts: Ints | None = None

    @cached_property
    def positions(self) -> Tensor:
        """Un-pruned positions, counted through the batch."""
        if self.listed is None:
            assert self.firsts is not None
            return self.cells + sent(self.firsts, self.cells.device)
        return self.listed


@dataclass
class Prompt:
    """One prompt during one prefill.

    How many tokens survive is known at once, which ones when it is read: of a choice that was made on a device this
    waits until the choice has arrived.

    Attributes:
        info: the prompt's identity.
        row: its first batch row.
        groups: its token groups; one decision each.
        tokens: those of the batch.
        counts: surviving tokens of every group.
        chosen: groups whose tokens were last chosen on a device -> these, and the group's place among them.
    """

    info: PromptInfo
    row: int
    groups: list[TokenGroup]
    tokens: Tokens
    counts: list[int] = field(init=False)
    chosen: dict[int, tuple[Survivors, int]] = field(default_factory=dict)
    _reports: list[StageReport] = field(default_factory=list)
    _unread: list[tuple[int, Mapping[int, tuple[int, Source]]]] = field(default_factory=list)
    _scratch: dict[int, dict[str, Any]] = field(default_factory=dict)
    _first: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = [len(group.ranks) for group in self.groups]
        self._cells: list[Ints] = [np.arange(count) for count in self.counts]
        self._starts: dict[int, int | None] = {}

    # --- before a stage -----------------------------------------------------------------------------------------
    def keep(self, group: TokenGroup, stage: Stage) -> int:
        """Return how many tokens of a group a stage shall leave."""
        count = self.counts[group.ordinal]
        first = self._first.setdefault((group.ordinal, id(stage.pruner)), count)
        return min(count, keep_count(first, stage.ratio))

    def known_cells(self, ordinal: int) -> Ints | None:
        """Return [N] surviving cells of a group; None if they were chosen on a device."""
        return None if ordinal in self.chosen else self._cells[ordinal]

    def is_whole(self, ordinal: int) -> bool:
        """Check whether no token of a group is gone, as far as is known."""
        return ordinal not in self.chosen and len(self._cells[ordinal]) == len(self.groups[ordinal].ranks)

    def start_of(self, group: TokenGroup) -> int | None:
        """Return the first position of a group whose tokens are neighbours, cell after cell; None for any other."""
        if group.ordinal not in self._starts:
            positions = self.placeholders[group.ranks.numpy()]
            neighbours = len(positions) and bool((positions == np.arange(len(positions)) + positions[0]).all())
            self._starts[group.ordinal] = int(positions[0]) if neighbours else None
        return self._starts[group.ordinal]

    def positions_of(self, group: TokenGroup, cells: Ints) -> Ints:
        """Return the positions [N] of cells of a group in the un-pruned prompt."""
        positions: Ints = self.placeholders[group.ranks.numpy()[cells]]
        return positions

    def cells_at(self, group: TokenGroup, positions: Ints) -> Ints:
        """Return the cells [N] of a group that are at positions of the un-pruned prompt."""
        every = self.placeholders[group.ranks.numpy()]
        order = every.argsort()
        cells: Ints = order[np.searchsorted(every, positions, sorter=order)]
        return cells

    def markers_of(self, group: TokenGroup) -> Ints:
        """Return the positions [M] of a group's placeholders that hold no visual token."""
        positions: Ints = self.placeholders[group.markers.numpy()]
        return positions

    def scratch(self, group: TokenGroup) -> dict[str, Any]:
        """Return the dictionary that methods keep from stage to stage for a group."""
        return self._scratch.setdefault(group.ordinal, {})

    # --- after a stage ------------------------------------------------------------------------------------------
    def decided(self, layer: int, picks: Mapping[int, tuple[int, Source]]) -> None:
        """Record the choice of a stage; groups without one keep everything.

        Args:
            layer: the stage's layer.
            picks: group -> how many of its surviving tokens were chosen, and which, in any order.
        """
        self._unread.append((layer, picks))
        for ordinal, (count, _) in picks.items():
            self.counts[ordinal] = count
            self.chosen.pop(ordinal, None)

    @property
    def reports(self) -> list[StageReport]:
        """One per stage so far."""
        self._catch_up()
        return self._reports

    @property
    def cells(self) -> tuple[Ints, ...]:
        """[N] for every group, the sorted cells whose tokens have survived so far."""
        self._catch_up()
        return tuple(self._cells)

    @property
    def kept(self) -> tuple[Tensor, ...]:
        """The same as tensors, for reports."""
        return tuple(torch.from_numpy(cells.copy()) for cells in self.cells)

    @property
    def survivors(self) -> Ints:
        """[m] sorted positions of all tokens that have survived so far."""
        self._catch_up()
        positions: Ints = self._alive.nonzero()[0]
        return positions

    def _catch_up(self) -> None:
        """Read the choices that were recorded since the last time."""
        unread, self._unread = self._unread, []
        for layer, picks in unread:
            for ordinal, (_, source) in picks.items():
                self._apply(ordinal, np.sort(source.read()))
            self._check_count(layer)
            self._reports.append(StageReport(layer, self.kept))

    def _apply(self, ordinal: int, indices: Ints) -> None:
        """Keep these of a group's surviving tokens.

        Markers are not up for selection: they stay as long as their group has a token left.
        """
        group, cells = self.groups[ordinal], self._cells[ordinal]
        self._cells[ordinal] = cells[indices]
        self._alive[self.positions_of(group, cells)] = False
        self._alive[self.positions_of(group, cells[indices])] = True
        if not len(indices):
            self._alive[self.markers_of(group)] = False

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

    # --- the un-pruned prompt -----------------------------------------------------------------------------------
    @cached_property
    def placeholders(self) -> Ints:
        """[P] positions of the visual placeholders."""
        positions: Ints = self.tokens.visual.numpy()[self.row].nonzero()[0]
        return positions

    @cached_property
    def text(self) -> Ints:
        """[T] positions of the text."""
        positions: Ints = self._text_mask.nonzero()[0]
        return positions

    @property
    def markers(self) -> Ints:
        """[M] positions of placeholders that hold no visual token."""
        return np.concatenate([self.markers_of(group) for group in self.groups])

    @cached_property
    def last(self) -> int:
        """Position of the last token."""
        return int(self.tokens.real.numpy()[self.row].nonzero()[0][-1])

    def question(self, special: list[int]) -> Ints:
        """Return the positions [M] of the question's tokens.

        Without `PromptInfo.positions` they are searched for by `question_positions`, which leaves out `special` ids.

        Raises:
            UserError: `PromptInfo.positions` names tokens that the prompt does not have.
        """
        if self.info.positions is not None:
            return self.info.checked(self.tokens.real.numpy()[self.row].nonzero()[0])
        ids = None if self.tokens.ids is None else self.tokens.ids.numpy()[self.row]
        return question_positions(ids, self._text_mask, int(self.placeholders[0]), self.info.question, special)

    @cached_property
    def _alive(self) -> Bools:
        """[L] True at tokens that have survived so far."""
        alive: Bools = self.tokens.real.numpy()[self.row].copy()
        return alive

    @cached_property
    def _text_mask(self) -> Bools:
        """[L] True at text."""
        mask: Bools = self.tokens.real.numpy()[self.row] & ~self.tokens.visual.numpy()[self.row]
        return mask
