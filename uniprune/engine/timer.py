"""The time of one `generate` call, split into spans that never overlap.

A timer is a stack of open spans and a list of marks. Whenever a span opens or closes, one mark is set and the time
since the last mark belongs to the span that was on top. So nested work (the method inside the prefill, a projector
inside the tower) is counted once. A mark is a CUDA event on the model's GPU and a `perf_counter` reading on the CPU;
nothing waits for the GPU before `sample()`. Only a model spread over several GPUs is waited for at every mark, because
events of different GPUs cannot be compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from uniprune.modeling.adapter import ModelAdapter
from uniprune.results.spans import PARTS, SpanName

MARK = "uniprune.span:"
"""Beginning of a mark's name in a profiler's trace; the rest is the span that ends there, or "None"."""


@dataclass(frozen=True)
class Spans:
    """Seconds of one `generate` call; the five parts are disjoint and sum to at most `total`.

    Attributes:
        vision: vision tower.
        projector: between tower and language model.
        method: everything pruning causes during prefill: token mapping, scores, selection, gathering, masks. The cost
            of the hooks in a decode step is part of `decode`.
        prefill: the model's first forward without the parts above.
        decode: from its end to the end of the last forward.
        total: from the start of the first span to the end of the last.
        new_tokens: forwards, so generated tokens of a row.
        peak_bytes: most memory in use on the model's GPUs meanwhile, together; None on the CPU.
    """

    vision: float
    projector: float
    method: float
    prefill: float
    decode: float
    total: float
    new_tokens: int
    peak_bytes: int | None = None

    @property
    def ttft(self) -> float:
        """Time to first token: all spans before decoding."""
        return self.total - self.decode

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None if there is none."""
        return self.decode / (self.new_tokens - 1) if self.new_tokens > 1 else None


class Timer:
    """Records one `generate` call at a time.

        with Timer(adapter) as timer, prune(model, pruner, timer):
            model.generate(**inputs)
            spans = timer.sample()

    Args:
        adapter: the model's adapter (`find_adapter(model)`).
        traced: whether to write every mark into the trace of a `torch.profiler` that is running.
    """

    def __init__(self, adapter: ModelAdapter, traced: bool = False) -> None:
        self.adapter = adapter
        self._traced = traced
        self._gpus = tuple({parameter.device for parameter in adapter.model.parameters() if parameter.is_cuda})
        self._handles: list[Any] = []
        self._reset()

    def _reset(self) -> None:
        self._marks: list[tuple[Any, SpanName | None]] = []
        self._open: list[SpanName] = []
        self._forwards = 0

    # --- lifecycle ----------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        adapter = self.adapter
        self._around(adapter.vision, "vision")
        self._around(adapter.projector, "projector")
        self._handles += [
            adapter.model.register_forward_pre_hook(self._before_call, with_kwargs=True),
            adapter.model.register_forward_hook(self._after_call, always_call=True),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _around(self, module: nn.Module, span: SpanName) -> None:
        self._handles += [
            module.register_forward_pre_hook(partial(self._before_part, span)),
            module.register_forward_hook(self._after_part, always_call=True),
        ]

    # --- recording ----------------------------------------------------------------------------------------------
    @contextmanager
    def span(self, name: SpanName) -> Iterator[None]:
        """Attribute the time of the block to `name`, except inner spans; in a decode step, to `decode`."""
        if self._forwards:
            yield
            return
        self._mark()
        self._open.append(name)
        try:
            yield
        finally:
            self._mark()
            if self._open:  # an exception may have reset the timer
                self._open.pop()

    def sample(self) -> Spans:
        """Return the spans of the `generate` call that just ended; the timer is then ready for the next one.

        Raises:
            RuntimeError: no forward was recorded since the last sample.
        """
        if not self._forwards:
            raise RuntimeError("nothing was timed: run model.generate inside `with Timer(adapter)` before sample()")
        seconds = dict.fromkeys(PARTS, 0.0)
        marks = self._marks
        for gpu in self._gpus:
            torch.cuda.synchronize(gpu)
        for (before, _), (after, name) in pairwise(marks):
            if name is not None:
                seconds[name] += self._between(before, after)
        spans = Spans(
            **seconds,
            total=self._between(marks[0][0], marks[-1][0]),
            new_tokens=self._forwards,
            peak_bytes=sum(map(torch.cuda.max_memory_allocated, self._gpus)) if self._gpus else None,
        )
        self._reset()
        return spans

    def _between(self, before: Any, after: Any) -> float:
        return float(before.elapsed_time(after) / 1000 if len(self._gpus) == 1 else after - before)

    def _mark(self, name: SpanName | None = None) -> None:
        """Attribute the time since the last mark to `name`, by default to the innermost open span."""
        if not self._marks:
            for gpu in self._gpus:
                torch.cuda.reset_peak_memory_stats(gpu)
        ended = name or (self._open[-1] if self._open else None)
        self._marks.append((self._now(), ended))
        if self._traced:
            with torch.profiler.record_function(f"{MARK}{ended}"):
                pass

    def _now(self) -> Any:
        """Return an event of the model's one GPU, whichever device is torch's current one; else seconds."""
        if len(self._gpus) == 1:
            now = torch.cuda.Event(enable_timing=True)
            now.record(torch.cuda.current_stream(self._gpus[0]))
            return now
        for gpu in self._gpus:
            torch.cuda.synchronize(gpu)
        return time.perf_counter()

    # --- hooks --------------------------------------------------------------------------------------------------
    def _before_part(self, span: SpanName, module: nn.Module, args: Any) -> None:
        if self._forwards:  # a finished call that was not sampled
            self._reset()
        self._mark()
        self._open.append(span)

    def _after_part(self, module: nn.Module, args: Any, output: Any) -> None:
        self._mark()
        if output is None:  # an exception: what was recorded means nothing
            self._reset()
        else:
            self._open.pop()

    def _before_call(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        if cache is None or int(cache.get_seq_length()) == 0:
            if self._forwards:
                self._reset()
            self._mark()
            self._open.append("prefill")

    def _after_call(self, module: nn.Module, args: Any, output: Any) -> None:
        self._mark("prefill" if self._open else "decode")
        self._open.clear()
        self._forwards += 1
        if output is None:
            self._reset()
