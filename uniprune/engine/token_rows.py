"""Inputs of decoder layers besides hidden states, with a row per token of the un-pruned prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from uniprune.engine.compaction import KeptTokens, take
from uniprune.errors import UnsupportedError

Move = tuple[int, Tensor, Tensor]
"""A batch row, un-pruned positions [m] in it, and the positions of the tokens that take these places."""


def gathered_rows(
    inputs: tuple[Any, ...], unpruned: KeptTokens, moves: Iterable[Move], kept: KeptTokens, width: int
) -> tuple[Any, ...]:
    """Return a layer's positional inputs after its hidden states for the tokens that are left.

    Args:
        inputs: each [B, L, d] of the un-pruned prompts, [B, `width`, d] of their last tokens, or no tensor.
        unpruned: the un-pruned prompts.
        moves: the tokens that were given other places so far, in order; a token keeps its own rows.
        kept: the tokens that are left.
        width: columns of the layer's hidden states.

    Raises:
        UnsupportedError: a tensor has no row per token.
    """
    sources = unpruned.index.clone()
    for row, places, tokens in moves:
        sources[row, places] = sources[row, tokens]
    rows = sources.gather(1, kept.index)
    return tuple(_rows(one, rows, sources.shape[1], width) if isinstance(one, Tensor) else one for one in inputs)


def _rows(given: Tensor, rows: Tensor, length: int, width: int) -> Tensor:
    if given.dim() == 3 and given.shape[1] == length:
        return take(given, rows)
    if given.dim() == 3 and given.shape[1] == width:  # of the last tokens, which are always left
        return given
    raise UnsupportedError(
        f"decoder layers receive a tensor of shape {tuple(given.shape)} besides hidden states, which has no row for "
        f"each of the prompt's {length} tokens; which rows belong to the tokens that are left is not known"
    )
