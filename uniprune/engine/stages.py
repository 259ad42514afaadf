"""Compaction: dropping tokens from a padded batch and giving the decoder layers masks and positions that fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.engine.host import to_device
from uniprune.engine.state import Kept


def pack(layer: int, rows: Sequence[Tensor], index: Tensor) -> tuple[Kept, Tensor]:
    """Repack the surviving columns of every row, left-padded to the longest row.

    Args:
        layer: the first layer that sees the new sequence.
        rows: per batch item, the sorted columns of the current sequence that survive.
        index: [B, n] un-pruned position of every current column.

    Returns:
        the new sequence, and [B, n'] the current column each new column is gathered from.
    """
    width, lengths = max(map(len, rows)), tuple(map(len, rows))
    columns = pad_sequence(list(rows), batch_first=True, padding_side="left")
    valid = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    return Kept(layer, index.gather(1, columns).where(valid, 0), valid, lengths), columns


def take(x: Tensor, columns: Tensor) -> Tensor:
    """Rows `columns` [B, n'] of `x` [B or 1, n, D], on the device of `x`."""
    where = to_device(columns, x.device)[..., None].expand(-1, -1, x.shape[-1])
    return x.expand(columns.shape[0], -1, -1).gather(1, where)


def replace_tokens(hidden: Tensor, replaced: Sequence[tuple[int, Tensor, Tensor]]) -> Tensor:
    """`hidden` [B, n, D] with (row, columns, new tokens) written in; the input is left as it is."""
    if replaced:
        hidden = hidden.clone()
    for row, columns, tokens in replaced:
        hidden[row, to_device(columns, hidden.device)] = tokens
    return hidden


def renumbered(kept: Kept, real: Tensor) -> tuple[Tensor, Tensor]:
    """Compact positions: survivors take the first positions of their row, as if the prompt had always been short.

    `real` [B, L] is the validity of the un-pruned prompt.

    Returns:
        [B, n] un-pruned positions whose rotary rows to use, and [B, 1] what later positions must be lowered by.
    """
    index, shift = torch.zeros_like(kept.index), []
    for b, length in enumerate(kept.lengths):
        positions = real[b].nonzero()[:, 0]
        index[b, kept.valid[b]] = positions[:length]
        shift.append(len(positions) - length)
    return index, torch.tensor(shift)[:, None]
