"""Attention of a later turn's tokens: to those of earlier turns, which the cache holds, and to each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.errors import UnsupportedError


@dataclass(frozen=True)
class TurnCapture(AttentionCapture):
    """Inputs of one decoder self-attention in a later turn.

    Queries and columns are counted among the turn's tokens. The layer's mask has all pairs, padding included.
    """

    def checked(self) -> TurnCapture:
        """Return this capture.

        Raises:
            UnsupportedError: the kernel has no mask of pairs.
        """
        if not isinstance(self.mask, Tensor) or self.mask.dim() != 4:
            raise UnsupportedError(
                "attention of a later turn is recomputed for the kernels eager and sdpa only; load the model with one "
                "of them, or start again with an empty cache and the whole conversation"
            )
        return self

    def probabilities(self, row: int, queries: Tensor, columns: Tensor, valid: Tensor | None) -> Iterator[Tensor]:
        """Yield [heads, r, N] attention, as in a prefill; the softmax runs over earlier turns, too."""
        return super().probabilities(row, queries, columns + self._past, None)

    def last(self, queries: Tensor | None, columns: Tensor, owners: Tensor | None, valid: Tensor | None) -> Tensor:
        """Return [P, heads, N] attention from the last tokens, likewise."""
        return super().last(queries, columns + self._past, owners, None)

    def keys(self, row: int, positions: Tensor) -> Tensor:
        """Return [R, key heads * d] rotated keys."""
        return super().keys(row, positions + self._past)

    @property
    def _past(self) -> int:
        """Columns of earlier turns."""
        return int(self.mask.shape[-1]) - self.hidden.shape[1]

    def _keys(self, row: int) -> Tensor:
        return self._all_keys()[row]

    def _all_keys(self) -> Tensor:
        """Return [B, key heads, past + n, d] rotated keys.

        Raises:
            UnsupportedError: the cache holds no plain tensors.
        """
        if self._cached is None:
            raise UnsupportedError(
                f"keys of earlier turns cannot be read from a {type(self.cache).__name__}; use a DynamicCache, or "
                "start again with an empty cache and the whole conversation"
            )
        return self._cached
