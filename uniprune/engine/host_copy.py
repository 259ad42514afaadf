"""Copies between the CPU and a device, of integers only: what the engine keeps on the CPU comes and goes here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.kept_tokens import Ints

HOST = torch.device("cpu")
Array = np.ndarray[Any, np.dtype[Any]]


class HostCopy:
    """One tensor of integers on its way to the CPU, started at once and read later.

    From a GPU the copy is queued behind the work that makes the values; reading it waits for that work, not for what
    was queued after it. Until it is read, the values on the device must not change.

    Args:
        values: [n] int64.
        later: whether they are read later; what is read at once needs neither pinned memory nor an event.
    """

    def __init__(self, values: Tensor, later: bool = True) -> None:
        self._found: Ints | None = None
        self._values: Tensor = values
        self._event: Any = None
        if values.device == HOST:
            self._found = values.numpy().copy()  # a method may keep its answer, and write into it
            del self._values
        elif values.is_cuda and later:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> Ints:
        """Return the values, [n], waiting for them the first time."""
        if self._found is None:
            if self._event is not None:
                self._event.synchronize()
            self._found = self._values.to(HOST).numpy().copy()
            del self._values, self._event
        return self._found


@dataclass(frozen=True)
class Part:
    """A tensor that is copied together with others.

    Attributes:
        copy: of all of them.
        start: its first element among all.
        shape: its shape.
    """

    copy: HostCopy
    start: int
    shape: tuple[int, ...]

    def read(self) -> Ints:
        """Return its values."""
        values: Ints = self.copy.read()[self.start : self.start + prod(self.shape)].reshape(self.shape)
        return values


def start_copies(tensors: Sequence[Tensor], later: bool = True) -> list[Part]:
    """Start to copy integer or boolean tensors to the CPU, as int64; those of one device together.

    `later` is whether they are read later; what is read at once needs neither pinned memory nor an event.
    """
    groups: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        groups.setdefault(tensor.device, []).append(place)
    found: dict[int, Part] = {}
    for device, places in groups.items():
        if device == HOST:  # nothing is gained together
            found |= {place: Part(HostCopy(tensors[place].long()), 0, tuple(tensors[place].shape)) for place in places}
            continue
        flat = [tensors[place].long().flatten() for place in places]
        copy, start = HostCopy(flat[0] if len(flat) == 1 else torch.cat(flat), later), 0
        for place in places:
            found[place] = Part(copy, start, tuple(tensors[place].shape))
            start += tensors[place].numel()
    return [found[place] for place in range(len(tensors))]


def to_host(tensors: Sequence[Tensor]) -> list[Ints]:
    """Return integer or boolean tensors as int64 on the CPU; those of one device in one transfer."""
    return [part.read() for part in start_copies(tensors, later=False)]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; from the CPU without waiting: memory that is not pinned is copied out at once."""
    return tensor.to(device, non_blocking=tensor.device == HOST)


def sent(values: Array, device: torch.device) -> Tensor:
    """Return a copy of an array as a tensor on a device, without waiting."""
    return to_device(torch.from_numpy(np.array(values)), device)
