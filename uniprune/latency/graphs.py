"""Prefills as CUDA graphs: the decoder's layers as a serving engine would run them, without launches of single kernels.

One eager prefill is recorded; then each stretch of layers between stages runs on static copies of its inputs, writes
keys and values into a cache of its own, and is captured as one graph. On a CPU a plain call takes the place of the capture.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uniprune.engine import prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.evaluation.generation import is_out_of_memory
from uniprune.latency.prompts import Prompts
from uniprune.latency.recorded_prefill import Recorder, Segment, Segments, mapped
from uniprune.latency.replay import Captured, Plain, check_calls, run_segment
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.greedy import Greedy
from uniprune.pruning.base import Pruner

LEAST_TOLERANCE = 1e-5
"""Largest difference from the eager prefill as a share of its norm, for precise types; four steps of coarser ones."""


class GraphTimes(NamedTuple):
    """Seconds of the measured prefills of one method, or why there are none."""

    seconds: list[float]
    refusal: str | None


@torch.inference_mode()
def graph_times(
    adapter: ModelAdapter, pruners: Sequence[Pruner], prompts: Prompts, warmup: int, repeats: int
) -> list[GraphTimes]:
    """Measure the graphs' prefills of methods in turn, on one batch; their memory is free again afterwards.

    Args:
        adapter: the model's adapter.
        pruners: the methods.
        prompts: the batch.
        warmup: prefills before the measured ones.
        repeats: measured prefills.
    """
    made = [_attempt(adapter, pruner, prompts) for pruner in pruners]
    graphs = [(one, number) for number, one in enumerate(made) if isinstance(one, PrefillGraphs)]
    seconds: list[list[float]] = [[] for _ in made]
    for call in range(warmup + repeats):
        turn = call % max(1, len(graphs))
        for graph, number in graphs[turn:] + graphs[:turn]:
            taken = graph.seconds()
            seconds[number] += [taken] * (call >= warmup)
    refusals = [one if isinstance(one, str) else None for one in made]
    del made, graphs
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return [GraphTimes(*found) for found in zip(seconds, refusals, strict=True)]


def _attempt(adapter: ModelAdapter, pruner: Pruner, prompts: Prompts) -> PrefillGraphs | str:
    """Return the graphs, or the reason why there are none."""
    try:
        return PrefillGraphs.of(adapter, pruner, prompts)
    except UserError as error:
        return str(error)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return "out of memory"


class PrefillGraphs:
    """The decoder's layers, final norm and output head on one batch, ready to run again and again.

    Args:
        recorded: the eager prefill.

    Attributes:
        results: of every segment, after a run; the last one's are logits of the last token.

    Raises:
        UnsupportedError: what the layers do depends on values, they cannot be captured, or the graphs compute otherwise
            than the eager prefill.
    """

    def __init__(self, recorded: Segments) -> None:
        self._device = recorded.stretches[0].entering.device
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        segments = [self._static(segment) for segment in recorded.stretches]
        plain = Plain([partial(run_segment, segment) for segment in segments], partial(recorded.fresh, self._device))
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
        """Copy the inputs and run all segments; return their results, which the next run may overwrite."""
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
        calls = [
            replace(call, args=mapped(call.args, self._copy), kwargs=mapped(call.kwargs, self._copy))
            for call in segment.calls
        ]
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
