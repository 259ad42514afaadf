"""Peak memory of a piece of work."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from types import TracebackType
from typing import Self

import torch


class PeakMemory:
    """Largest growth of memory inside a `with` block, in bytes; None where the machine does not tell.

    On a GPU that of torch's allocator; on the CPU that of this process, whose high-water mark Linux lets us reset.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> Self:
        """Start from now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start: int | None = torch.cuda.memory_allocated(self.device)
        else:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed would hide what this one takes
                Path("/proc/self/clear_refs").write_text("5")
            self._start = _status("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read the peak."""
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _status("VmHWM")
        self.bytes = None if peak is None or self._start is None else peak - self._start


def _status(name: str) -> int | None:
    """A size in /proc/self/status, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
