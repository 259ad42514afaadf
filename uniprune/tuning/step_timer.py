"""Stopwatch of a training step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class StepTimer:
    """Seconds of one training step and of its spans, for the step log.

    `uniprune.engine.timer.Timer` is no substitute: it hooks a vision-language adapter and splits one `generate` call.

    Attributes:
        spans: seconds per span.
    """

    def __init__(self, device: torch.device) -> None:
        self.spans: dict[str, float] = {}
        self._device = device
        self._start = self._now()

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Add the time of the block to a span."""
        start = self._now()
        yield
        self.spans[name] = self.spans.get(name, 0.0) + self._now() - start

    def elapsed(self) -> float:
        """Return the seconds since the timer was made."""
        return self._now() - self._start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
