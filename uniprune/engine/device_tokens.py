"""The tokens of a batch at one point of the decoder, on its device: their positions and columns, never read back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.host_copy import sent, to_device
from uniprune.engine.kept_tokens import Bools, Ints, KeptTokens


class DeviceTokens:
    """The columns that un-pruned tokens have in the current sequence.

    Positions are counted through the batch: token p of row b is b * L + p, its column c is b * n + c.

    Args:
        kept: the current sequence.
        length: L, columns of the un-pruned prompts.
        index: [B, n] un-pruned positions of the columns in their rows, 0 at padding, on the device where they were
            chosen; None if `kept.index` is known on the CPU.
        unpruned: whether every column is its own position.
    """

    def __init__(self, kept: KeptTokens, length: int, index: Tensor | None = None, unpruned: bool = False) -> None:
        self.kept, self.length, self.unpruned, self._index = kept, length, unpruned, index
        self._sent: dict[tuple[str, torch.device], Tensor] = {}

    def index(self, device: torch.device) -> Tensor:
        """Return [B, n] un-pruned positions in their rows."""
        index = self._index
        return self._once("index", device, lambda: self.kept.index if index is None else to_device(index, device))

    def valid(self, device: torch.device) -> Tensor | None:
        """Return [B, n] False at padding; None without padding."""
        return self._once("valid", device, lambda: self.kept.valid) if self.kept.padded else None

    def columns(self, positions: Ints, device: torch.device) -> Tensor:
        """Return the columns of positions that are on the CPU; any column for absent ones."""
        if self._index is None:
            return sent(self.known_columns(positions), device)
        return self.columns_of(sent(positions, device))

    def known_columns(self, positions: Ints) -> Ints:
        """Return the same on the CPU; waits for tokens that were chosen on a device."""
        columns: Ints = positions if self.unpruned else self._places[positions]
        return columns

    def columns_of(self, positions: Tensor) -> Tensor:
        """Return the columns of positions that are on a device; any column for absent ones."""
        if self.unpruned:
            return positions
        places = self._once("places", positions.device, partial(self._placed, positions.device))
        return places[positions]

    @cached_property
    def _places(self) -> Ints:
        """[B * L] the column of every position."""
        places = np.zeros(len(self.kept.lengths) * self.length, np.int64)
        rows, columns = self.kept.valid.nonzero()
        places[rows * self.length + self.kept.index[rows, columns]] = rows * self.kept.width + columns
        return places

    def _placed(self, device: torch.device) -> Tensor | Ints:
        """Return the same on a device that chose the tokens; its last element is that of padding."""
        if self._index is None:
            return self._places
        index, valid = self.index(device), self.valid(device)
        flat = index
        if len(index) > 1:
            flat = index + sent(np.arange(len(index))[:, None] * self.length, device)
        if valid is not None:
            flat = flat.where(valid, len(index) * self.length)
        places = flat.new_zeros(len(index) * self.length + 1)
        return places.index_copy_(0, flat.flatten(), torch.arange(flat.numel(), device=device))

    def _once(self, name: str, device: torch.device, make: Callable[[], Tensor | Ints | Bools]) -> Tensor:
        """Return what `make` returns, on a device; made once for each."""
        if (name, device) not in self._sent:
            made = make()
            self._sent[name, device] = made if isinstance(made, Tensor) else sent(made, device)
        return self._sent[name, device]
