"""Inputs of decoder layers besides hidden states, with a row per token of the un-pruned prompt."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from uniprune.engine.compaction import KeptTokens, take
from uniprune.errors import UnsupportedError


class TokenRows:
    """The token whose rows each place of the un-pruned prompts has: its own, until tokens are moved.

    Args:
        unpruned: the un-pruned prompts.
    """

    def __init__(self, unpruned: KeptTokens) -> None:
        self._sources = unpruned.index.clone()

    def move(self, row: int, places: Tensor, sources: Tensor) -> None:
        """Give un-pruned positions `places` [m] of a batch row the rows of the tokens at `sources` [m]."""
        self._sources[row, places] = self._sources[row, sources]

    def gathered(self, inputs: tuple[Any, ...], kept: KeptTokens, width: int) -> tuple[Any, ...]:
        """Return a layer's positional inputs after its hidden states for the `kept` tokens.

        Args:
            inputs: each [B, L, ...] of the un-pruned prompts, [B, `width`, ...], or no tensor.
            kept: the tokens that are left.
            width: columns of the layer's hidden states.

        Raises:
            UnsupportedError: a tensor has no row per token.
        """
        return tuple(self._rows(one, kept, width) if isinstance(one, Tensor) else one for one in inputs)

    def _rows(self, given: Tensor, kept: KeptTokens, width: int) -> Tensor:
        if given.dim() == 3 and given.shape[1] == self._sources.shape[1]:
            return take(given, self._sources.gather(1, kept.index))
        if given.dim() == 3 and given.shape[1] == width:  # of the last tokens, which are always left
            return given
        raise UnsupportedError(
            f"decoder layers receive a tensor of shape {tuple(given.shape)} besides hidden states, which has no row "
            f"for each of the prompt's {self._sources.shape[1]} tokens; which rows belong to the tokens that are left "
            "is not known"
        )
