"""Prefills as graphs, on a CPU as plain calls: equal to the eager prefill, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.helpers.pruners import hooks_on
from tests.helpers.recorded_prefills import DIVPRUNE, FASTV, METHODS, Peeking, prompts, recorded
from tests.helpers.tiny import build, fresh_model
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.graphs import PrefillGraphs
from uniprune.latency.measure import Bench, BenchOptions
from uniprune.latency.recorded_prefill import Recorder
from uniprune.latency.replay import run_segment
from uniprune.latency.rows import BenchFile, BenchRow
from uniprune.latency.tables import flat, notes
from uniprune.latency.timed_model import TimedModel, load_timed
from uniprune.modeling.families import find_adapter
from uniprune.modeling.greedy import Greedy
from uniprune.modeling.loading import Placement
from uniprune.utils.console import RunProgress

FAMILIES = {
    "llava": ("none", "pre", "intra", "hybrid"),
    "internvl": ("none", "pre", "intra", "hybrid"),
    "qwen2_5_vl": ("none", "pre", "intra", "hybrid"),
    "qwen3_vl": ("none", "hybrid"),  # deepstack
    "qwen3_5": ("none", "hybrid"),  # linear attention
    "gemma4-e2b": ("none", "hybrid"),  # windows, shared keys, capped logits
    "qwen3_vl_moe": ("none", "pre"),
}
CASES = [(family, method) for family, methods in FAMILIES.items() for method in methods]
CPU = Placement("float32", "sdpa", "cpu")


@torch.inference_mode()
@pytest.mark.parametrize(("family", "method"), CASES)
def test_graphs_compute_what_the_eager_prefill_does(family: str, method: str) -> None:
    """Bit for bit: every segment's states, the logits of the last token, and the keys and values of every layer."""
    model, batch = build(family), prompts(family)
    segments, cache, logits = recorded(model, METHODS[method], batch)
    graphs = PrefillGraphs(segments)
    for _ in range(2):
        results = graphs.run()
        assert all(map(torch.equal, results, [segment.leaving for segment in segments.stretches]))
        assert torch.equal(results[-1], logits)
    states = segments.fresh(torch.device("cpu"))
    for segment in segments.stretches:
        run_segment(segment, states)
    (ours,) = (state for state in states if hasattr(state, "layers"))
    for layer, eager in zip(ours.layers, cache.layers, strict=True):
        for part in ("keys", "values"):
            written, expected = getattr(layer, part, None), getattr(eager, part, None)
            assert (written is None and expected is None) or torch.equal(written, expected)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("family", "method", "first"),
    [
        ("llava", "none", [0]),
        ("llava", "pre", [0]),
        ("llava", "intra", [0, 2]),
        ("internvl", "hybrid", [0, 2]),
        ("qwen3_vl", "none", [0, 1, 2, 3]),
        ("qwen3_5", "intra", [0, 2]),
    ],
)
def test_a_segment_begins_where_tokens_go_or_features_come(family: str, method: str, first: list[int]) -> None:
    segments, _, _ = recorded(build(family), METHODS[method], prompts(family))
    assert [segment.first for segment in segments.stretches] == first


@torch.inference_mode()
def test_three_stages_are_three_segments() -> None:
    pruner = DIVPRUNE >> FASTV >> MethodSpec("fastv", ratio=0.5, layer=3).pruner()
    graphs = PrefillGraphs.of(find_adapter(build("llava")), pruner, prompts("llava"))
    assert graphs.segments == 3
    lengths = [states.shape[1] for states in graphs.run()]
    assert lengths == sorted(set(lengths), reverse=True)


@torch.inference_mode()
def test_a_run_reads_its_inputs_anew_and_leaves_no_hooks() -> None:
    """Inputs are copied from the recorded tensors, so that new values in them are new results."""
    model, batch = build("llava"), prompts("llava")
    recorded(model, DIVPRUNE, batch)  # transformers adds hooks of its own at its first call
    hooks = hooks_on(model)
    segments, _, logits = recorded(model, DIVPRUNE, batch)
    assert hooks_on(model) == hooks
    graphs = PrefillGraphs(segments)
    segments.stretches[0].entering.mul_(0.5)
    assert not torch.allclose(graphs.run()[-1], logits)
    segments.stretches[0].entering.mul_(2)
    assert torch.equal(graphs.run()[-1], logits)


# --- refusals ---------------------------------------------------------------------------------------------------
@torch.inference_mode()
@pytest.mark.parametrize(("mask", "operation"), [(False, "_local_scalar_dense"), (True, "index")])
def test_layers_that_depend_on_values_are_refused(mask: bool, operation: str) -> None:
    model = fresh_model("llava")
    layer = find_adapter(model).layers[1]
    layer.mlp = Peeking(layer.mlp, mask)
    with pytest.raises(UnsupportedError, match=rf"LlamaDecoderLayer calls aten::{operation}, which depends on values"):
        PrefillGraphs.of(find_adapter(model), DIVPRUNE, prompts("llava"))


@torch.inference_mode()
def test_loops_over_the_experts_that_were_chosen_are_refused() -> None:
    model = fresh_model("qwen3_vl_moe")
    model.set_experts_implementation("eager")
    with pytest.raises(UnsupportedError, match=r"Qwen3VLMoeTextDecoderLayer calls aten::.*, which depends on values"):
        PrefillGraphs.of(find_adapter(model), DIVPRUNE, prompts("qwen3_vl_moe"))


@torch.inference_mode()
def test_methods_with_their_own_number_of_tokens_are_refused() -> None:
    pruner = MethodSpec("prumerge", ratio=0.5, settings={"adaptive": "true"}).pruner()
    with pytest.raises(UnsupportedError, match="chooses its own number of tokens"):
        PrefillGraphs.of(find_adapter(build("llava")), pruner, prompts("llava"))


@torch.inference_mode()
def test_graphs_that_compute_otherwise_are_refused() -> None:
    segments, _, _ = recorded(build("llava"), FASTV, prompts("llava"))
    segments.stretches[1].leaving *= 1.001
    with pytest.raises(UnsupportedError, match=r"graph 2 of 2 computes otherwise .* differ by 0\.001 of their norm"):
        PrefillGraphs(segments)


def changed(model: Any, layer: int, hook: Any) -> None:
    """Record a prefill whose decoder layer receives what a hook makes of its arguments."""
    adapter = find_adapter(model)
    handle = adapter.layers[layer].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.inference_mode(), prune(model, METHODS["none"]), Recorder(adapter) as recorder:
            Greedy().generate(model, prompts("llava").inputs, 1)
        recorder.segments([])
    finally:
        handle.remove()


def test_what_the_model_computes_between_layers_is_not_left_out() -> None:
    with pytest.raises(UnsupportedError, match="something between decoder layer 1 and decoder layer 2"):
        changed(build("llava"), 2, lambda module, args, kwargs: ((args[0] * 2, *args[1:]), kwargs))


@pytest.mark.parametrize("argument", [{"a": 1}, [1], object()])
def test_arguments_that_layers_may_share_are_refused(argument: object) -> None:
    with pytest.raises(UnsupportedError, match=f"decoder layer 0 receives a {type(argument).__name__}"):
        changed(build("llava"), 0, lambda module, args, kwargs: (args, {**kwargs, "more": argument}))


def test_a_layer_that_runs_twice_is_refused() -> None:
    model = build("llava")
    layers = find_adapter(model).layers
    handle = layers[1].register_forward_hook(lambda module, args, output: layers[0](output))
    try:
        with pytest.raises(UnsupportedError, match="decoder layer 0 ran out of turn"):
            changed(model, 0, lambda module, args, kwargs: None)
    finally:
        handle.remove()


# --- bench ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def llava() -> TimedModel:
    return load_timed("tiny-llava", random_weights=True, placement=CPU)


def bench(llava: TimedModel, path: Path, graphs: bool, *methods: MethodSpec) -> list[BenchRow]:
    options = BenchOptions(text=8, new_tokens=2, repeats=3, warmup=1, graphs=graphs)
    progress = RunProgress(1, Console(quiet=True))
    return Bench(llava, [MethodSpec("none"), *methods], options, BenchFile(path), progress).run()


@pytest.mark.end_to_end
def test_bench_measures_graphs_of_stored_rows_too(llava: TimedModel, tmp_path: Path) -> None:
    """Also where one method of several has none."""
    methods = (
        MethodSpec("fastv", ratio=0.5),
        MethodSpec("prumerge", ratio=0.5, settings={"adaptive": "true"}),
    )
    plain = bench(llava, tmp_path / "b.jsonl", False, *methods)
    none, fastv, prumerge = rows = bench(llava, tmp_path / "b.jsonl", True, *methods)
    assert [row.measured for row in rows] == [row.measured for row in plain]
    assert fastv.graphs
    assert fastv.measured
    assert (len(fastv.graphs.seconds), fastv.graphs.segments, fastv.graphs.refusal) == (3, 2, None)
    cells, speed = flat(fastv), fastv.graph_speedups
    assert none.graphs and fastv.graphs.vanilla == none.graphs.median and fastv.graphs.median
    assert speed["graphs speed-up"] == pytest.approx(fastv.graphs.vanilla / fastv.graphs.median)
    method = fastv.measured.median("method")
    assert speed["net graphs speed-up"] == pytest.approx(fastv.graphs.vanilla / (fastv.graphs.median + method))
    assert speed["net graphs achieved"] == speed["net graphs speed-up"] / fastv.speedups["prefill ceiling"]
    assert cells["graphs ms"] == pytest.approx(1000 * fastv.graphs.median)
    assert cells["net graphs speed-up"] == speed["net graphs speed-up"]
    assert prumerge.graph_speedups == {}
    assert flat(prumerge)["graphs ms"] is None
    assert any("prumerge" in note and "chooses its own number" in note for note in notes(rows))
    assert not any("graphs" in note for note in notes(plain))
    assert bench(llava, tmp_path / "b.jsonl", True, *methods) == rows
