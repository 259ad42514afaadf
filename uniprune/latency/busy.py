"""Time in which the GPU works for each span of a call: why a span can take long although its FLOPs are few.

Calls run under `torch.profiler`, and its trace links every kernel to the call of the CUDA runtime that launched it. The
timer's marks in the trace (`uniprune.engine.timer.MARK`) divide the host's time into spans; a kernel belongs to the
span in which the host launched it, whenever the GPU came to run it.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from uniprune.engine.timer import MARK
from uniprune.results.spans import PARTS

CALLS = 2
"""Profiled calls of a case; times are their mean. Kernels take equal times, unlike the host."""
WORK = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of the trace in which the GPU works."""
LAUNCHES = ("cuda_runtime", "cuda_driver")
"""Categories of the calls that launch it."""
ELSEWHERE = "elsewhere"
"""Work that was launched in no span: `generate`'s own, between tower and prefill and after a forward."""
UNKNOWN = "unknown"
"""Work whose launch is not in the trace."""


def profile_busy(call: Callable[[], object], calls: int = CALLS) -> dict[str, float] | None:
    """Measure the seconds that the GPU works in each span of a call; None if the profiler sees no kernel.

    Args:
        call: calls `generate` once under a `Timer(adapter, traced=True)`.
        calls: number of calls.
    """
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return busy_seconds(trace_events(profiler), calls)


def trace_events(profiler: Any) -> list[dict[str, Any]]:
    """Return the events of a profile in Chrome's format: times in microseconds, launches with their correlation."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_bytes())["traceEvents"]
    return events


def busy_seconds(events: Iterable[Mapping[str, Any]], calls: int = 1) -> dict[str, float] | None:
    """Attribute the GPU's work to spans; None if the trace has none.

    Args:
        events: of a trace.
        calls: number of calls in it.

    Returns:
        Span, `ELSEWHERE` or `UNKNOWN` -> seconds per call in which at least one kernel or copy ran.

    Raises:
        RuntimeError: the trace has no marks.
    """
    marks: list[tuple[float, str]] = []
    launched: dict[int, float] = {}
    work: list[tuple[float, float, int]] = []
    for event in events:
        kind = event.get("cat")
        if kind == "user_annotation" and event["name"].startswith(MARK):
            marks.append((event["ts"], event["name"].removeprefix(MARK)))
        elif kind in LAUNCHES and "correlation" in event.get("args", {}):
            number = event["args"]["correlation"]
            launched[number] = min(event["ts"], launched.get(number, event["ts"]))
        elif kind in WORK:
            work.append((event["ts"], event["ts"] + event["dur"], event["args"].get("correlation", 0)))
    if not work:
        return None
    if not marks:
        raise RuntimeError("the trace has no marks: run the call under Timer(adapter, traced=True)")
    marks.sort()
    intervals: dict[str, list[tuple[float, float]]] = {}
    for start, end, number in work:
        span = _span(marks, launched[number]) if number in launched else UNKNOWN
        intervals.setdefault(span, []).append((start, end))
    return {name: _union(of) / 1e6 / calls for name, of in intervals.items()}


def _span(marks: Sequence[tuple[float, str]], time: float) -> str:
    """Return the span of a time: the one that ends at the next mark."""
    place = bisect_right(marks, time, key=itemgetter(0))
    name = marks[place][1] if place < len(marks) else ELSEWHERE
    return name if name in PARTS else ELSEWHERE


def _union(intervals: list[tuple[float, float]]) -> float:
    """Return the length of the union: kernels of several streams may overlap."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length
