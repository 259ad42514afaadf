"""The tokens that each decoder layer holds: how many, known at once, and which, read from the device when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


class Source(Protocol):
    """Integers that may still be on their way from a device."""

    def read(self) -> Ints:
        """Return them, waiting if they have not arrived."""


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that enter decoder layer `layer` and all later ones.

    Attributes:
        layer: first layer that holds this sequence.
        lengths: tokens of every row.
        width: n, columns of the sequence, padding included.
        valid: [B, n] False at padding.
        source: provides `index`.
    """

    layer: int
    lengths: tuple[int, ...]
    width: int
    valid: Bools
    source: Source

    @property
    def index(self) -> Ints:
        """[B, n] positions in the un-pruned sequence, 0 at padding, ascending; waits for a device that chose them."""
        return self.source.read()

    @property
    def padded(self) -> bool:
        """Return whether rows have different lengths."""
        return min(self.lengths) < self.width

    @property
    def last_columns(self) -> Ints:
        """[B] the column of every row's last token."""
        last: Ints = self.width - 1 - self.valid[:, ::-1].argmax(1)
        return last

    def columns(self, positions: Ints, row: int) -> Ints:
        """Return the columns [m] of un-pruned `positions` [m] in a row; any column for absent ones."""
        places = self._places[row]
        found: Ints = places[np.minimum(positions, len(places) - 1)]
        return found

    @cached_property
    def _places(self) -> Ints:
        """[B, P] the column of every un-pruned position up to the last one that is left."""
        places = np.zeros((len(self.index), int(self.index.max(initial=0)) + 1), np.int64)
        rows, columns = self.valid.nonzero()
        places[rows, self.index[rows, columns]] = columns
        return places


@dataclass(frozen=True)
class Known:
    """Integers that are on the CPU."""

    values: Ints

    def read(self) -> Ints:
        """Return them."""
        return self.values


@dataclass(frozen=True)
class Row:
    """A row of some integers.

    Attributes:
        source: provides [P, k].
        number: of the row.
    """

    source: Source
    number: int

    def read(self) -> Ints:
        """Return them, [k]."""
        row: Ints = self.source.read()[self.number]
        return row


def active(stages: Sequence[KeptTokens], layer: int) -> KeptTokens | None:
    """Return the stage in force at `layer`: the last one at or before it; `stages` are in layer order."""
    found = None
    for stage in stages:
        if stage.layer <= layer:
            found = stage
    return found


def pack(rows: Sequence[Ints]) -> Ints:
    """Return [B, n] the surviving columns of every row, left-padded with 0 to the longest."""
    width = max(map(len, rows))
    packed = np.zeros((len(rows), width), np.int64)
    for row, columns in zip(packed, rows, strict=True):
        row[width - len(columns) :] = columns
    return packed


def valid_columns(lengths: Sequence[int]) -> Bools:
    """Return [B, n] False at the padding of sequences of these lengths, left-padded to the longest."""
    width = max(lengths)
    valid: Bools = np.arange(width) >= width - np.array(lengths)[:, None]
    return valid


def renumbered(kept: KeptTokens, real: Bools) -> tuple[Ints, Ints]:
    """Return compact positions: survivors take the first positions of their row, as in a prompt that was always short.

    Args:
        kept: the surviving tokens.
        real: [B, L] validity of the un-pruned prompt.

    Returns:
        [B, n] un-pruned positions whose rotary rows to use, and [B, 1] the decrement of all later positions.
    """
    positions = [row.nonzero()[0] for row in real]
    first = pack([own[:length] for own, length in zip(positions, kept.lengths, strict=True)])
    shift = [len(own) - length for own, length in zip(positions, kept.lengths, strict=True)]
    return first, np.array(shift)[:, None]
