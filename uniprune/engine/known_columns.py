"""Columns after a stage: in the first one all are known before a method has chosen, but those of the chosen tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.host_copy import sent
from uniprune.engine.kept_tokens import Ints, valid_columns
from uniprune.engine.prompt import Survivors
from uniprune.engine.stage_groups import StageGroups


@dataclass(frozen=True)
class KnownColumns:
    """The columns of a batch that a stage leaves, where every group is one run of neighbouring tokens.

    Attributes:
        columns: [P, n'] columns that stay, one row per prompt, 0 at padding; at chosen tokens any of their group.
        copies: rows per prompt.
        places: for groups of one size the place in `columns` of the first chosen token of each, counted through them.
    """

    columns: Ints
    copies: int
    places: list[list[int]]

    @classmethod
    def of(cls, decided: Sequence[StageGroups], now: DeviceTokens, gone: Ints, copies: int) -> KnownColumns | None:
        """Return them; None after an earlier stage, and for groups with other tokens between their own.

        Args:
            decided: groups of which something goes, those of one size together.
            now: the arriving tokens.
            gone: positions of markers that go, counted through the batch.
            copies: rows per prompt.
        """
        if not now.unpruned or any(groups.starts is None for groups in decided):
            return None
        stays = now.kept.valid.copy()
        stays.ravel()[gone] = False
        stays = stays[::copies]
        owners = [[(row // copies, first) for row, first in _firsts(groups)] for groups in decided]
        for groups, firsts in zip(decided, owners, strict=True):
            for row, first in firsts:
                stays[row, first + groups.keep : first + groups.total] = False
        lengths = stays.sum(1)
        width = int(lengths.max())
        valid = valid_columns(lengths.tolist())
        columns = np.zeros(valid.shape, np.int64)
        columns[valid] = stays.nonzero()[1]
        before = stays.cumsum(1) + (np.arange(len(stays)) * width + width - lengths - 1)[:, None]
        places = [
            [int(before[row, first]) if groups.keep else 0 for row, first in firsts]
            for groups, firsts in zip(decided, owners, strict=True)
        ]
        return cls(columns, copies, places)

    def chosen(self, indices: Sequence[Tensor], decided: Sequence[StageGroups], device: torch.device) -> Tensor:
        """Return [B, n'] the columns on the device, with those of the chosen tokens.

        Args:
            indices: for groups of one size their chosen indices [P, k], ascending, on the device.
            decided: these groups.
            device: of the tokens.
        """
        columns = sent(self.columns, device)
        flat = columns.view(-1)
        for own, groups, places in zip(indices, decided, self.places, strict=True):
            firsts = [first for _, first in _firsts(groups)]
            same = len(set(firsts)) == 1
            own = own + (firsts[0] if same else sent(np.array(firsts)[:, None], device))
            if len(own) == 1:
                flat[places[0] : places[0] + groups.keep].copy_(own[0])
            else:
                where = np.array(places)[:, None] + np.arange(groups.keep)
                flat.index_copy_(0, sent(where.ravel(), device), own.flatten())
        return columns if self.copies == 1 else columns.repeat_interleave(self.copies, 0)


def _firsts(groups: StageGroups) -> list[tuple[int, int]]:
    """Return the row of every group's prompt, and the column of its first token."""
    return list(zip(groups.rows, groups.starts or (), strict=True))


def found_columns(
    decided: Sequence[StageGroups],
    survivors: Sequence[Survivors],
    now: DeviceTokens,
    gone: Ints,
    lengths: Sequence[int],
    copies: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return [B, n'] columns that stay and [B, n'] their positions, 0 at padding, and [P] how many, of every prompt.

    Args:
        decided: groups of which something goes, those of one size together.
        survivors: their chosen tokens.
        now: the arriving tokens.
        gone: positions of markers that go, counted through the batch.
        lengths: tokens of every row afterwards.
        copies: rows per prompt.
        device: of the tokens.
    """
    stays = sent(now.kept.valid.ravel().astype(np.uint8), device)
    for groups, own in zip(decided, survivors, strict=True):
        places = now.columns_of(own.positions).flatten()
        stays.index_fill_(0, groups.columns.flatten(), 0).index_fill_(0, places, 1)
    if len(gone):
        stays.index_fill_(0, now.columns(gone, device), 0)
    # In the order of `stays`, columns that stay come last, as they were.
    stays = stays.view(len(lengths), -1)[::copies]
    columns = stays.argsort(dim=1, stable=True)[:, now.kept.width - max(lengths) :]
    if copies > 1:
        columns = columns.repeat_interleave(copies, 0)
    valid = valid_columns(lengths)
    real = None if valid.all() else sent(valid, device)
    columns = columns if real is None else columns.where(real, 0)
    index = columns
    if not now.unpruned:
        index = now.index(device).gather(1, columns)
        index = index if real is None else index.where(real, 0)
    return columns, index, [stays.sum(1)]
