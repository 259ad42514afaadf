"""Inputs of decoder layers besides hidden states, with a row per token of the un-pruned prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.compaction import take
from uniprune.engine.host_copy import to_device
from uniprune.errors import UnsupportedError

Move = tuple[Tensor, Tensor]
"""Un-pruned positions [m] of a batch, counted through its rows, and those of the tokens that take these places."""


def origins(index: Tensor, length: int, moves: Iterable[Move]) -> Tensor:
    """Return [B, n] the un-pruned positions, in their rows, of the tokens that are now at positions `index` [B, n].

    Args:
        index: of all columns, in their rows.
        length: columns of the un-pruned prompts.
        moves: the tokens that were given other places so far, in order.
    """
    starts, sources = None, None
    for places, tokens in moves:
        if sources is None:
            sources = torch.arange(len(index) * length, device=index.device)
            starts = sources[::length, None]
        places, tokens = to_device(places, index.device), to_device(tokens, index.device)
        sources = sources.index_copy(0, places, sources[tokens])
    return index if sources is None or starts is None else sources[index + starts] - starts


def came_from(positions: Tensor, batch: int, length: int, moves: Iterable[Move]) -> Tensor:
    """Return the positions that tokens now at `positions` had, both counted through `batch` rows of `length`."""
    every = torch.arange(batch * length, device=positions.device).view(batch, length)
    before = origins(every - every[:, :1], length, moves) + every[:, :1]
    return before.flatten()[positions]


def gathered_rows(inputs: tuple[Any, ...], rows: Tensor, length: int, width: int) -> tuple[Any, ...]:
    """Return a layer's positional inputs after its hidden states for the tokens that are left.

    Args:
        inputs: each [B, L, d] of the un-pruned prompts, [B, `width`, d] of their last tokens, or no tensor.
        rows: [B, n] un-pruned positions of the tokens that are left; a token keeps its own rows wherever it is placed.
        length: L.
        width: columns of the layer's hidden states.

    Raises:
        UnsupportedError: a tensor has no row per token.
    """
    return tuple(_rows(one, rows, length, width) if isinstance(one, Tensor) else one for one in inputs)


def _rows(given: Tensor, rows: Tensor, length: int, width: int) -> Tensor:
    if given.dim() == 3 and given.shape[1] == length:
        return take(given, rows)
    if given.dim() == 3 and given.shape[1] == width:  # of the last tokens, which are always left
        return given
    raise UnsupportedError(
        f"decoder layers receive a tensor of shape {tuple(given.shape)} besides hidden states, which has no row for "
        f"each of the prompt's {length} tokens; which rows belong to the tokens that are left is not known"
    )
