"""Prefills as CUDA graphs: the decoder's layers as a serving engine would run them, without launches of single kernels.

One eager prefill is recorded; then each stretch of layers between stages runs on static copies of its inputs, writes
keys and values into a cache of its own, and is captured as one graph. On a CPU plain calls take the place of graphs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.latency.prompts import Prompts
from uniprune.latency.recorded_prefill import Recorder, Segment, Segments
from uniprune.latency.replay import Captured, Plain, check_calls, run_segment
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.greedy import Greedy
from uniprune.pruning.base import Pruner

LEAST_TOLERANCE = 1e-5
"""Largest difference from the eager prefill as a share of its norm, for precise types; four steps of coarser ones."""


class PrefillGraphs:
    """The decoder's layers, final norm and output head on one batch, ready to run again and again.

    Args:
        recorded: the eager prefill.

    Attributes:
        segments: number of graphs.

    Raises:
        UnsupportedError: what the layers do depends on values, they cannot be captured, or the graphs compute otherwise
            than the eager prefill.
    """

    def __init__(self, recorded: Segments) -> None:
        self._device = recorded.stretches[0].entering.device
        self.segments = len(recorded.stretches)
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        segments = [self._static(segment) for segment in recorded.stretches]
        plain = Plain([partial(run_segment, segment) for segment in segments], partial(recorded.fresh, self._device))
        plain()  # what libraries do at their first call is not the layers' work
        check_calls(segments, recorded.fresh(self._device))
        self._play = Captured(plain, self._device) if self._device.type == "cuda" else plain
        self._check([segment.leaving for segment in recorded.stretches])

    @classmethod
    def of(cls, adapter: ModelAdapter, pruner: Pruner, prompts: Prompts) -> PrefillGraphs:
        """Run one eager prefill and make the graphs of it.

        Raises:
            UnsupportedError: it cannot be exact; the message gives the reason.
        """
        for stage in pruner.schedule(len(adapter.layers)):
            if not stage.pruner.exact:
                raise UnsupportedError(
                    f"{type(stage.pruner).__name__} chooses its own number of tokens: graphs have one length, so those "
                    "of these prompts would serve no others"
                )
        devices = {str(parameter.device) for layer in adapter.layers for parameter in layer.parameters()}
        if len(devices) > 1:
            raise UnsupportedError(f"the decoder is on {', '.join(sorted(devices))}, and a graph runs on one device")
        with prune(adapter.model, pruner) as session, Recorder(adapter) as recorder:
            session.samples = prompts.samples
            Greedy().generate(adapter.model, prompts.inputs, 1)
        return cls(recorder.segments(kept.layer for kept in session.reports[-1].kept))

    def run(self) -> list[Tensor]:
        """Copy the inputs and run all segments.

        Returns:
            Of each segment the hidden states [B, n, D] after it, of the last one [B, 1, V] the output head's result for
            the last token. The next run may overwrite them.
        """
        for static, source in self._copies.values():
            static.copy_(source)
        return self._play()

    def seconds(self) -> float:
        """Return the seconds of one run, copies of the inputs included."""
        if self._device.type != "cuda":
            begin = time.perf_counter()
            self.run()
            return time.perf_counter() - begin
        with torch.cuda.device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self.run()
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def _static(self, segment: Segment) -> Segment:
        """Return a segment that reads copies, which stay at their addresses."""
        calls = [call.mapped(self._copy) for call in segment.calls]
        return Segment(segment.first, self._copy(segment.entering), calls, segment.leaving)

    def _copy(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._copies:
            self._copies[id(value)] = value.clone(), value
        return self._copies[id(value)][0]

    def _check(self, eager: Sequence[Tensor]) -> None:
        """Compare a second run, which would show what the first one left behind, with the eager prefill."""
        self.run()
        for number, (ours, theirs) in enumerate(zip(self.run(), eager, strict=True)):
            limit = max(LEAST_TOLERANCE, 4 * torch.finfo(theirs.dtype).eps)
            differs = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
            if not differs <= limit:
                raise UnsupportedError(
                    f"graph {number + 1} of {len(eager)} computes otherwise than the eager prefill: results differ by "
                    f"{differs:.2g} of their norm, more than {limit:.2g}"
                )
