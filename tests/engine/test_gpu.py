"""Tests that need a CUDA device: decisions as on the CPU, spans from events, peak memory. Skipped without one."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import generate
from tests.helpers.tiny import FAMILIES, fresh_model, inputs
from uniprune.engine import PrefillReport, prune
from uniprune.engine.timer import Timer
from uniprune.errors import UnsupportedError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.modeling.families import find_adapter
from uniprune.registry import METHODS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("error:greedy selections run pick by pick"),
]
GPU = torch.device("cuda")
NAMES = [name for name in METHODS.names() if METHODS.get(name).__module__.startswith("uniprune.methods.")]
family = pytest.mark.parametrize("family", FAMILIES)


def on(device: torch.device, batch: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the batch on a device, its pixels in the model's precision."""
    return {name: x.to(device, dtype if x.is_floating_point() else x.dtype) for name, x in batch.items()}


def answer(model: Any, batch: dict[str, Tensor], name: str) -> tuple[list[list[int]], PrefillReport]:
    """Return the new tokens and the report of the prefill."""
    with torch.inference_mode(), prune(model, MethodSpec(name, ratio=0.34).pruner()) as session:
        ids, _ = generate(model, batch, 4)
    return ids.tolist(), session.reports[-1]


@family
@pytest.mark.parametrize("name", NAMES)
def test_decisions_and_answers_are_those_of_the_cpu(family: str, name: str) -> None:
    """In float64, where no rounding of another order of additions can swap two scores."""
    batch = inputs(family, (1, 2))
    model = fresh_model(family).double()
    try:
        want, ours = answer(model, on(torch.device("cpu"), batch, torch.float64), name)
    except UnsupportedError as error:
        pytest.skip(str(error))
    got, theirs = answer(model.to(GPU), on(GPU, batch, torch.float64), name)
    for a, b in zip(ours.rows, theirs.rows, strict=True):
        assert a.entering == b.entering
        for one, other in zip(a.stages, b.stages, strict=True):
            assert [cells.tolist() for cells in one.kept] == [cells.tolist() for cells in other.kept]
    assert got == want


@family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs(family: str, dtype: torch.dtype) -> None:
    model, batch = fresh_model(family).to(GPU, dtype), on(GPU, inputs(family, (1, 2)), dtype)
    for name in ("divprune", "cdpruner", "fastv", "sparsevlm"):
        assert answer(model, batch, name)[1].pruned


@family
def test_spans_come_from_events_and_fill_the_call(family: str) -> None:
    model, batch = fresh_model(family).to(GPU), on(GPU, inputs(family, (1, 2)), torch.float32)
    pruner, timer = MethodSpec("divprune", ratio=0.34).pruner(), Timer(find_adapter(model))
    with torch.inference_mode(), timer, prune(model, pruner, timer):
        for _ in range(2):
            torch.cuda.synchronize()
            start = time.perf_counter()
            generate(model, batch, 4)
            torch.cuda.synchronize()
            wall = time.perf_counter() - start
            spans = timer.sample()
    parts = (spans.vision, spans.projector, spans.method, spans.prefill, spans.decode)
    assert min(parts) > 0
    assert sum(parts) <= spans.total * 1.001
    assert spans.total <= wall * 1.01
    assert spans.peak_bytes is not None
    assert spans.peak_bytes >= sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_events_are_those_of_the_models_gpu() -> None:
    """Torch's current device stays another one: its stream would show when work was queued, not when it ran."""
    second = torch.device("cuda", 1)
    model, batch = fresh_model("llava").to(second), on(second, inputs("llava", (1, 2)), torch.float32)
    timer = Timer(find_adapter(model))
    with torch.inference_mode(), timer:
        for _ in range(2):
            start = time.perf_counter()
            generate(model, batch, 20)
            torch.cuda.synchronize(second)
            wall = time.perf_counter() - start
            spans = timer.sample()
    assert 0.7 * wall < spans.total <= wall * 1.01


def waits(model: Any, batch: dict[str, Tensor]) -> bool:
    """Check whether the second decode step of a user's own loop reads something back from the device."""
    first = model(**batch, use_cache=True)
    token = first.logits[:, -1:].argmax(-1)
    step: dict[str, Any] = {"input_ids": token, "past_key_values": first.past_key_values, "use_cache": True}
    model(**step)  # what is prepared once
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(**step)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


@family
def test_decoding_on_a_pruned_cache_waits_no_more_than_without(family: str) -> None:
    model, batch = fresh_model(family).to(GPU), on(GPU, inputs(family, (2,)), torch.float32)
    with torch.inference_mode():
        bare = waits(model, batch)
        with prune(model, MethodSpec("fastv", ratio=0.34).pruner()):
            assert waits(model, batch) <= bare
