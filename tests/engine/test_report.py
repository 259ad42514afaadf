"""Reports count the visual tokens that entered each layer; the timer splits the time into spans."""

import time
from dataclasses import fields
from typing import Any

import pytest
import torch

from tests.helpers.pruners import FixedAnswer, Plan, generate, hooks_on
from tests.helpers.tiny import FAMILIES, IMAGE, build, inputs, visual
from uniprune.engine import prune
from uniprune.engine.timer import Spans, Timer
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.none import NoPruning
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter
from uniprune.pruning.budget import keep_count

family = pytest.mark.parametrize("family", FAMILIES)
PARTS = ("vision", "projector", "method", "prefill", "decode")


@family
def test_entering_tokens_are_what_the_layers_saw(family: str) -> None:
    """Against the hidden states themselves: a hook of our own counts the tokens of every layer's input."""
    model, images = build(family), (1, 2)
    x, widths = inputs(family, images), []
    tokens = visual(x).sum(1)
    rest = x["attention_mask"].sum(1) - tokens
    handles = []
    with prune(model, DivPrune(ratio=0.5) >> FastV(ratio=0.3, layer=3)) as session:
        for layer in model.get_decoder().layers:
            see = lambda module, args, kwargs: widths.append((args[0] if args else kwargs["hidden_states"]).shape[1])  # noqa: E731
            handles.append(layer.register_forward_pre_hook(see, with_kwargs=True))
        generate(model, x, 1)
    for handle in handles:
        handle.remove()
    report = session.reports[-1]
    for layer, width in enumerate(widths):
        assert max(r.entering[layer] + int(t) for r, t in zip(report.rows, rest, strict=True)) == width
    for b, row in enumerate(report.rows):
        sizes = [sum(t * h * w for t, h, w in grids) for grids in row.grids]
        assert row.initial == sum(sizes) == int(tokens[b])
        assert row.markers == [int((x["input_ids"][b] == IMAGE).sum() - tokens[b])] * 5
        first = [keep_count(n, 0.5) for n in sizes]
        second = [keep_count(n, 0.3) for n in first]
        assert row.entering == [sum(first)] * 3 + [sum(second)] * 2
        assert row.average == pytest.approx(sum(row.entering) / 5)
        assert row.average_ratio == pytest.approx(row.average / row.initial)
        assert [stage.layer for stage in row.stages] == [0, 3]
        for stage, counts in zip(row.stages, (first, second), strict=True):
            assert [len(kept) for kept in stage.kept] == counts
        for before, after in zip(row.stages[0].kept, row.stages[1].kept, strict=True):
            assert set(after.tolist()) < set(before.tolist())
            assert torch.equal(after, after.sort().values)


@family
def test_unpruned_and_text_only_prefills_are_reported(family: str) -> None:
    model = build(family)
    with prune(model, NoPruning(ratio=0.1)) as session:
        generate(model, inputs(family), 3)
        generate(model, inputs(family, (0,)), 3)
    pictured, text = (report.rows[0] for report in session.reports)
    assert pictured.entering == [pictured.initial] * 5
    assert pictured.average_ratio == text.average_ratio == 1
    assert text.entering == [0] * 5


def timed(family: str, timer: Timer, steps: int = 6, ratio: float = 0.5) -> tuple[Spans, float]:
    model, x = build(family), inputs(family, (2,))
    with prune(model, DivPrune(ratio=ratio), timer):
        start = time.perf_counter()
        generate(model, x, steps)
        elapsed = time.perf_counter() - start
    return timer.sample(), elapsed


@family
def test_spans_are_disjoint_parts_of_the_total(family: str) -> None:
    model = build(family)
    hooks = hooks_on(model)
    with Timer(find_adapter(model)) as timer:
        for _ in range(2):
            spans, elapsed = timed(family, timer)
            parts = [getattr(spans, name) for name in PARTS]
            assert min(parts) > 0
            assert sum(parts) <= spans.total + 1e-9
            assert spans.total <= elapsed
            assert spans.new_tokens == 6
            assert spans.ttft == pytest.approx(spans.total - spans.decode)
            assert spans.tpot == pytest.approx(spans.decode / 5)
    assert hooks_on(model) == hooks
    assert [f.name for f in fields(Spans)] == [*PARTS, "total", "new_tokens", "peak_bytes"]


@family
def test_method_time_is_the_methods(family: str) -> None:
    """A select that sleeps lengthens `method` and nothing else."""
    model, x = build(family), inputs(family)

    def slow(view: object, keep: int) -> torch.Tensor:
        time.sleep(0.2)
        return torch.arange(keep)

    with Timer(find_adapter(model)) as timer:
        with prune(model, FixedAnswer(answer=slow), timer):
            generate(model, x, 2)
        spans = timer.sample()
    assert spans.method >= 0.2
    assert spans.vision + spans.projector + spans.prefill + spans.decode < 0.2


def test_sleeping_modules_are_charged_to_their_span() -> None:
    """Nested modules too: Qwen's projector is inside its tower."""
    model, x = build("qwen2_5_vl"), inputs("qwen2_5_vl")
    slow = model.base_model.visual.merger.mlp.register_forward_pre_hook(lambda module, args: time.sleep(0.2))
    with Timer(find_adapter(model)) as timer:
        generate(model, x, 2)
        spans = timer.sample()
    slow.remove()
    assert spans.projector >= 0.2
    assert spans.vision < 0.2
    assert spans.method == 0


def test_no_time_of_a_pruned_decode_step_is_lost() -> None:
    """Work before the language model starts is part of the step, too."""
    model, x = build("llava"), inputs("llava")

    def wait(module: torch.nn.Module, args: object, kwargs: dict[str, Any]) -> None:
        if kwargs["past_key_values"].get_seq_length():
            time.sleep(0.05)

    slow = model.base_model.register_forward_pre_hook(wait, with_kwargs=True)
    with Timer(find_adapter(model)) as timer, prune(model, FastV(ratio=0.5), timer):
        generate(model, x, 5)
        spans = timer.sample()
    slow.remove()
    assert spans.decode >= 4 * 0.05
    assert spans.ttft < 4 * 0.05
    assert spans.tpot is not None
    assert spans.tpot >= 0.05


def test_timer_describes_the_last_call() -> None:
    model, x = build("llava"), inputs("llava")
    with Timer(find_adapter(model)) as timer:
        generate(model, x, 6)
        generate(model, x, 3)
        assert timer.sample().new_tokens == 3
        with pytest.raises(RuntimeError, match="nothing was timed"):
            timer.sample()
        fails = FixedAnswer(answer=lambda view, keep: None)
        with prune(model, fails, timer), pytest.raises(RuntimeError, match="NoneType instead of a tensor"):
            generate(model, x, 3)
        generate(model, x, 1)
        spans = timer.sample()
        assert spans.new_tokens == 1
        assert spans.decode == 0
        assert spans.tpot is None


def test_pruned_flag() -> None:
    model = build("llava")
    with prune(model, Plan(plan={2: 1.0})) as session:
        generate(model, inputs("llava"), 1)
    assert not session.reports[-1].pruned
    with prune(model, RandomPre(ratio=0.5)) as session:
        generate(model, inputs("llava"), 1)
    assert session.reports[-1].pruned
