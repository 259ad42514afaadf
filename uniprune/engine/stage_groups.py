"""Token groups that arrive at a stage, those of one size together: where their tokens are, and the views of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.host_copy import sent, to_device, to_host
from uniprune.engine.kept_tokens import Ints
from uniprune.engine.looks import Seen
from uniprune.engine.prompt import Prompt, Survivors
from uniprune.engine.token_groups import TokenGroup
from uniprune.engine.token_rows import Move, came_from
from uniprune.engine.vision import Vision
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Stage


@dataclass(frozen=True)
class StageInput:
    """A batch arriving at a stage; a snapshot, so that views stay valid when the prefill goes on.

    Attributes:
        stage: the pruning point.
        adapter: the model's adapter.
        hidden: [B, n, D] with padding, on the layer's device.
        now: the tokens of `hidden`.
        embeds: [B, L, D] inputs of the language model.
        vision: the vision-tower call of the images, None if unknown.
        attention: of the layer before, if captured.
        upcoming: attention of the layer about to run, if the method declared it.
        seen: what the method has looked at.
        moves: tokens that earlier stages gave other places.
    """

    stage: Stage
    adapter: ModelAdapter
    hidden: Tensor
    now: DeviceTokens
    embeds: Tensor
    vision: Vision | None
    attention: AttentionCapture | None
    upcoming: AttentionCapture | None
    seen: Sequence[Seen] = ()
    moves: Sequence[Move] = ()

    @property
    def device(self) -> torch.device:
        """Device of the hidden states."""
        return self.hidden.device

    @cached_property
    def flat(self) -> Tensor:
        """[B * n, D]."""
        return self.hidden.flatten(0, 1)


class StageGroups:
    """P groups of N tokens each that arrive at a stage, of which the same number shall stay.

    Args:
        arriving: the stage.
        members: prompt and group of each.
        keep: tokens that shall stay of each.

    Attributes:
        arriving, members, keep: as given.
        total: N.
    """

    def __init__(self, arriving: StageInput, members: Sequence[tuple[Prompt, TokenGroup]], keep: int) -> None:
        self.arriving, self.members, self.keep = arriving, tuple(members), keep
        prompt, group = members[0]
        self.total = prompt.counts[group.ordinal]

    def only(self, number: int) -> StageGroups:
        """Return one group alone."""
        return StageGroups(self.arriving, self.members[number : number + 1], self.keep)

    @property
    def samples(self) -> list[str]:
        """Id of every group's prompt."""
        return [prompt.info.id for prompt, _ in self.members]

    @cached_property
    def rows(self) -> list[int]:
        """First batch row of every group's prompt."""
        return [prompt.row for prompt, _ in self.members]

    @cached_property
    def known_cells(self) -> Ints | None:
        """[P, N] cells, None if some were chosen on the device and are not read yet."""
        known = [prompt.known_cells(group.ordinal) for prompt, group in self.members]
        found = [cells for cells in known if cells is not None]
        return np.stack(found) if len(found) == len(known) else None

    @cached_property
    def cells(self) -> Tensor:
        """[P, N] the same on the device."""
        if self._whole:
            return torch.arange(self.total, device=self.arriving.device).expand(len(self.members), -1)
        return self._gathered(self.known_cells, lambda survivors: survivors.cells)

    @cached_property
    def _whole(self) -> bool:
        """True if no cell is gone yet, as far as is known."""
        return all(prompt.is_whole(group.ordinal) for prompt, group in self.members)

    @cached_property
    def starts(self) -> list[int] | None:
        """The first position of every group in its row; None if some are not whole runs of neighbouring tokens."""
        found = [prompt.start_of(group) for prompt, group in self.members] if self._whole else []
        starts = [start for start in found if start is not None]
        return starts if len(starts) == len(self.members) else None

    @cached_property
    def firsts(self) -> Ints | None:
        """[P, 1] the same counted through the batch."""
        if self.starts is None:
            return None
        firsts: Ints = np.array(self.rows)[:, None] * self.arriving.now.length + np.array(self.starts)[:, None]
        return firsts

    def survivors(self, indices: Tensor) -> Survivors:
        """Return the tokens at `indices` [P, k] on the device, ascending."""
        cells = indices if self._whole else self.cells.gather(1, indices)
        if self.firsts is not None:
            return Survivors(cells, None, self.firsts)
        return Survivors(cells, self.positions.gather(1, indices))

    @cached_property
    def known_positions(self) -> Ints | None:
        """[P, N] un-pruned positions, counted through the batch; None as for the cells."""
        if self.known_cells is None:
            return None
        if self.firsts is not None:
            return self.firsts + np.arange(self.total)
        length = self.arriving.now.length
        pairs = zip(self.members, self.known_cells, strict=True)
        return np.stack([prompt.row * length + prompt.positions_of(group, cells) for (prompt, group), cells in pairs])

    @cached_property
    def positions(self) -> Tensor:
        """[P, N] the same on the device."""
        return self._gathered(self.known_positions, lambda survivors: survivors.positions)

    @cached_property
    def sources(self) -> Tensor:
        """[P, N] un-pruned positions that the tokens come from, counted through the batch."""
        now, moves = self.arriving.now, self.arriving.moves
        return came_from(self.positions, len(now.kept.lengths), now.length, moves) if moves else self.positions

    @cached_property
    def source_cells(self) -> Ints | None:
        """[P, N] cells that the tokens come from; None as for the cells. Waits for the device once some moved."""
        if not self.arriving.moves:
            return self.known_cells
        (positions,), length = to_host([self.sources]), self.arriving.now.length
        pairs = zip(self.members, positions, strict=True)
        return np.stack([prompt.cells_at(group, own - prompt.row * length) for (prompt, group), own in pairs])

    @cached_property
    def columns(self) -> Tensor:
        """[P, N] columns, counted through the batch."""
        now = self.arriving.now
        if self.known_positions is None or "positions" in self.__dict__ or now.unpruned:
            return now.columns_of(self.positions)
        return now.columns(self.known_positions, self.arriving.device)

    @cached_property
    def local(self) -> Tensor:
        """[P, N] columns in their rows."""
        if not any(self.rows):
            return self.columns
        starts = np.array(self.rows)[:, None] * self.arriving.now.kept.width
        return self.columns - sent(starts, self.arriving.device)

    @cached_property
    def seen(self) -> list[Tensor]:
        """[P, N, ...] per look."""
        return [one.of(self) for one in self.arriving.seen]

    @property
    def tokens(self) -> Tensor:
        """[P, N, D] a copy of the tokens."""
        return self.arriving.flat[self.columns]

    def chosen_tokens(self, indices: Tensor) -> Tensor:
        """Return [P, k, D] the tokens at `indices` [P, k] on the device, all of them possible."""
        return self.arriving.flat[self.columns.gather(1, indices)]

    def _gathered(self, known: Ints | None, part: Callable[[Survivors], Tensor]) -> Tensor:
        """Return [P, N] values of the groups on the device, as they were `known` or chosen there."""
        device = self.arriving.device
        if known is not None:
            return sent(known, device)
        places = [prompt.chosen.get(group.ordinal) for prompt, group in self.members]
        together = places[0][0] if places[0] is not None else None
        if together is not None and places == [(together, number) for number in range(len(together.cells))]:
            return to_device(part(together), device)
        rows = []
        for (prompt, group), place in zip(self.members, places, strict=True):
            cells = prompt.known_cells(group.ordinal)
            if place is not None:
                rows.append(to_device(part(place[0]), device)[place[1]])
            elif cells is not None:
                positions = prompt.row * self.arriving.now.length + prompt.positions_of(group, cells)
                rows.append(part(Survivors(sent(cells, device), sent(positions, device))))
        return torch.stack(rows)
