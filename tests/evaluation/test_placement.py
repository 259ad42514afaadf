"""Models spread over devices, and memory that runs out in the middle of a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from accelerate import cpu_offload

from tests.helpers.devices import ONE, TWO, Places, split
from tests.helpers.paths import PLUGINS
from uniprune.evaluation.dataset import DataOptions, Request
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.runner import Runner
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.modeling.messages import Part
from uniprune.registry import BENCHMARKS, load_plugin
from uniprune.results.predictions import Prediction

pytestmark = pytest.mark.end_to_end

FAMILIES = ("llava", "internvl", "qwen2.5-vl", "qwen3-vl")
METHODS = ("none", "divprune", "fastv", "sparsevlm", "visionzip+random-intra")
Checkpoint = Callable[[str], Path]


def requests(number: int) -> list[Request]:
    load_plugin(PLUGINS / "small_benchmark.py")
    rows: list[Request] = BENCHMARKS.get("small")(DataOptions(Path("unused"))).requests(number)
    longer = [*rows[1].load(), Part(text="and is there a circle at all ?")]  # so that batches are padded
    return [rows[0], dataclasses.replace(rows[1], load=lambda: longer), *rows[2:]]


def open_model(folder: Path) -> LoadedModel:
    return load(ModelEntry(name="tiny", source=str(folder)), Placement("float32", "sdpa", "cpu"))


def answer(loaded: LoadedModel, method: str, number: int, batch_size: int) -> list[Prediction]:
    choice = MethodSpec(method, 1.0 if method == "none" else 0.25)
    with Runner(loaded, choice.pruner(), batch_size) as runner:
        return [one for batch in runner.predictions(requests(number)) for one in batch]


def texts(answers: list[Prediction]) -> list[tuple[str, str, list[int] | None]]:
    return [(one.index, one.prediction, one.visual_tokens) for one in answers]


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_whose_weights_are_fetched_for_each_call_give_the_same(family: str, checkpoint: Checkpoint) -> None:
    """Offloaded layers, as with `device_map` when no GPU has room: accelerate's hooks load weights and move data."""
    whole, spread = (open_model(checkpoint(family)) for _ in range(2))
    for part in (*spread.adapter.layers[1:4], spread.adapter.decoder.norm, spread.adapter.projector):
        cpu_offload(part, execution_device=torch.device("cpu"))
    assert spread.adapter.layers[2].self_attn.q_proj.weight.is_meta
    for method in METHODS:
        assert texts(answer(spread, method, 2, 2)) == texts(answer(whole, method, 2, 2)), method


@pytest.mark.parametrize("method", ["none", "fastv", "sparsevlm"])
@pytest.mark.parametrize("forward", [1, 2], ids=["prefill", "decode"])
def test_memory_that_runs_out_after_a_pruning_point_costs_nothing_but_time(
    method: str, forward: int, checkpoint: Checkpoint
) -> None:
    loaded = open_model(checkpoint("llava"))
    expected = answer(loaded, method, 5, 4)
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    def refuse(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal forwards
        if len(args[0]) > 2 and forwards == forward:
            forwards = 0
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    handles = [
        loaded.model.register_forward_pre_hook(lambda *_: count()),
        loaded.adapter.layers[5].register_forward_pre_hook(refuse),
    ]
    try:
        answers = answer(loaded, method, 5, 4)
    finally:
        for handle in handles:
            handle.remove()
    assert [one.batch for one in expected] == [4, 4, 4, 4, 1]
    assert [one.batch for one in answers] == [2, 2, 2, 2, 1]
    assert texts(answers) == texts(expected)
    assert all(one.spans and one.spans["total"] > 0 for one in answers)


def on_two_devices() -> Iterator[ParameterSet]:
    """Yield every family with every method; in `make test` every method on the family that is next."""
    for j, family in enumerate(FAMILIES):
        for i, method in enumerate((*METHODS, "mustdrop", "pyramiddrop", "zspaprune", "fitprune")):
            yield pytest.param(family, method, marks=() if i % len(FAMILIES) == j else pytest.mark.exhaustive)


@pytest.mark.parametrize(("family", "method"), on_two_devices())
def test_layers_on_two_devices_give_the_same(family: str, method: str, checkpoint: Checkpoint) -> None:
    whole, spread = (open_model(checkpoint(family)) for _ in range(2))
    places = Places()
    split(places, spread.model, spread.adapter.layers, at=2)
    with places:
        answers = answer(spread, method, 2, 2)
    assert texts(answers) == texts(answer(whole, method, 2, 2))


def test_the_pretended_devices_do_refuse_to_be_mixed() -> None:
    with Places():
        one, two, cpu = torch.ones(2, device="cpu:1"), torch.ones(2).to("cpu:2"), torch.arange(2)
        assert ((one + 1).device, two.sum().device, one[cpu].device) == (ONE, TWO, ONE)
        assert one.to(two).device == TWO
        for wrong in (lambda: one + two, lambda: one + cpu, lambda: two[one.long()], lambda: one.numpy()):
            with pytest.raises(AssertionError, match=r"of (tensors|a tensor) on"):
                wrong()
