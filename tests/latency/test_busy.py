"""The GPU's busy times: kernels belong to the span that launched them; shares, notes and their absence on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.helpers.pruners import generate
from tests.helpers.tiny import fresh_model, inputs
from uniprune.engine import prune
from uniprune.engine.timer import MARK, Timer
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.busy import ELSEWHERE, UNKNOWN, busy_seconds, profile_busy, trace_events
from uniprune.latency.rows import BenchFile, BenchRow
from uniprune.latency.tables import flat, notes
from uniprune.modeling.families import find_adapter

DOCS = Path(__file__).parents[2] / "docs" / "performance" / "h200-2026-11-27.jsonl"


def mark(time: float, span: str | None) -> dict[str, Any]:
    """Return a mark of the timer at the end of a span, as the profiler writes it."""
    return {"ph": "X", "cat": "user_annotation", "name": f"{MARK}{span}", "ts": time, "dur": 0.5, "args": {}}


def kernel(
    launch: float | None,
    start: float,
    duration: float,
    number: int,
    call: str = "cudaLaunchKernel",
    kind: str = "kernel",
) -> Iterator[dict[str, Any]]:
    """Yield a kernel of the GPU and the call on the host that launched it."""
    driver = "cuda_driver" if call.startswith("cuL") else "cuda_runtime"
    if launch is not None:
        yield {"ph": "X", "cat": driver, "name": call, "ts": launch, "dur": 3, "args": {"correlation": number}}
    yield {"ph": "X", "cat": kind, "name": "k", "ts": start, "dur": duration, "args": {"correlation": number}}


MARKS = [
    mark(0, None),
    mark(100, "vision"),
    mark(110, None),
    mark(150, "prefill"),
    mark(200, "method"),
    mark(300, "prefill"),
]


def test_kernels_belong_to_the_span_that_launched_them() -> None:
    """The GPU is late: what the tower launched ends during the prefill, and what the method launched after it."""
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}},  # an event without category
        *kernel(10, 20, 130, 1),
        *kernel(99, 150, 30, 2, call="cuLaunchKernelEx"),  # Triton launches by the driver
        *kernel(105, 180, 1, 3),
        *kernel(120, 181, 9, 4),
        *kernel(160, 400, 40, 5, call="cudaMemcpyAsync", kind="gpu_memcpy"),
        *kernel(250, 440, 60, 6, call="cudaGraphLaunch"),
        *kernel(None, 500, 60, 6),  # another kernel of that graph
        *kernel(350, 560, 5, 7),
        *kernel(None, 565, 2, 8),
        {"ph": "X", "cat": "gpu_user_annotation", "name": f"{MARK}vision", "ts": 0, "dur": 900, "args": {}},
        *reversed(MARKS),
    ]
    found = busy_seconds(events)
    assert found is not None
    microseconds = {name: round(1e6 * value, 6) for name, value in found.items()}
    assert microseconds == {"vision": 160, ELSEWHERE: 6, "prefill": 129, "method": 40, UNKNOWN: 2}


def test_kernels_that_overlap_count_once_and_calls_share() -> None:
    overlapping = [
        *kernel(10, 20, 10, 1),
        *kernel(11, 25, 10, 2),
        *kernel(12, 26, 2, 3),
        *kernel(13, 50, 10, 4),
        *MARKS,
    ]
    assert busy_seconds(overlapping, calls=2) == {"vision": pytest.approx(25e-6 / 2)}


def test_a_trace_without_marks_or_without_kernels() -> None:
    assert busy_seconds([mark(0, None), mark(5, "vision")]) is None
    with pytest.raises(RuntimeError, match="no marks"):
        busy_seconds([*kernel(10, 20, 10, 1)])


def test_the_timer_writes_its_marks_into_a_trace() -> None:
    """The real profiler, on a CPU: in the order of their times, marks name the spans that end there."""
    model = fresh_model("llava")
    timer = Timer(find_adapter(model), traced=True)
    pruner = MethodSpec("fastv", ratio=0.5).pruner()
    with (
        torch.inference_mode(),
        profile(activities=[ProfilerActivity.CPU]) as profiler,
        timer,
        prune(model, pruner, timer),
    ):
        generate(model, inputs("llava", (1,)), 1)
    timer.sample()
    found = [event for event in trace_events(profiler) if event.get("name", "").startswith(MARK)]
    assert {event["cat"] for event in found} == {"user_annotation"}
    names = [event["name"].removeprefix(MARK) for event in sorted(found, key=lambda event: event["ts"])]
    assert [name for name, _ in groupby(names)][:4] == ["None", "vision", "None", "projector"]
    assert {*names} == {"None", "vision", "projector", "method", "prefill"}
    assert names[-1] == "prefill"


def measured(busy: dict[str, float] | None) -> list[BenchRow]:
    """Return rows of one prompt that a GPU measured, un-pruned and FastV, with busy times."""
    rows = BenchFile(DOCS).rows.values()
    names = ("none", "fastv")
    found = [
        row for row in rows if row.setup.batch == 1 and row.setup.visual == 1280 and row.setup.method.name in names
    ]
    return [row.with_busy(busy) for row in found]


def test_spans_in_which_the_gpu_waits_are_called_launch_bound() -> None:
    none, fastv = measured({"vision": 0.1, "method": 0.0002, "prefill": 0.0095, "projector": 0.0003})
    assert list(none.launch_bound) == ["prefill"]  # its method span has no work of a GPU
    assert list(fastv.launch_bound) == ["method", "prefill"]
    assert fastv.launch_bound["prefill"] == pytest.approx(0.0095 / 0.0236, rel=0.01)
    cells = flat(fastv)
    assert (cells["vision busy ms"], cells["elsewhere busy ms"]) == (100, 0)
    assert cells["launch-bound"] == "method 7%, prefill 40%"
    assert any("less than 60%" in note for note in notes([none, fastv]))
    assert notes([none, fastv])[0] == f"Measured on {none.setup.environment.device}."
    assert not measured({"vision": 0.1, "method": 0.0029, "prefill": 0.0345})[1].launch_bound


def test_absent_busy_times_are_explained() -> None:
    rows = measured(None)
    assert flat(rows[1])["launch-bound"] is None
    assert flat(rows[1])["prefill busy ms"] is None
    assert sum("saw no kernel" in note for note in notes(rows)) == 2
    on_cpu = [row.model_copy(update={"setup": row.setup.model_copy(update={"device": "cpu"})}) for row in rows]
    assert [note for note in notes(on_cpu) if "busy" in note] == ["No GPU, no busy times: on a CPU every span is work."]
    (note,) = [note for note in notes(measured({"prefill": 0.02, UNKNOWN: 0.001})[:1]) if "no known span" in note]
    assert "none, batch 1, 1280 tokens: 1 ms of" in note


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_works_for_tower_method_and_prefill() -> None:
    """Work launched inside the method's span is the method's, although the host is far ahead of the GPU."""
    model = fresh_model("llava").cuda()
    batch = {name: value.cuda() for name, value in inputs("llava", (1,)).items()}
    large = torch.randn(4096, 4096, device="cuda")

    def call(extra: int) -> None:
        timer = Timer(find_adapter(model), traced=True)
        with torch.inference_mode(), timer, prune(model, MethodSpec("fastv", ratio=0.5).pruner(), timer):
            with timer.span("method"):
                for _ in range(extra):
                    torch.mm(large, large)
            generate(model, batch, 1)

    call(0)
    few, many = (profile_busy(partial(call, extra)) for extra in (0, 20))
    assert few is not None and many is not None
    assert min(few[span] for span in ("vision", "method", "prefill")) > 0
    assert few.get(UNKNOWN, 0.0) < 0.01 * sum(few.values())
    assert many["method"] > 5 * few["method"]
    assert many["prefill"] < 2 * few["prefill"]
