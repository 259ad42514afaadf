"""Refusals of looks, the span that their time belongs to, and forwards other than one prefill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.looks import Looking
from tests.helpers.pruners import generate
from tests.helpers.recorded_prefills import prompts
from tests.helpers.tiny import IMAGE, build, fresh_model, inputs
from uniprune.engine import prune
from uniprune.engine.timer import Timer
from uniprune.errors import PruningError, UnsupportedError, UserError
from uniprune.latency.graphs import PrefillGraphs
from uniprune.methods.transprune import TransPrune
from uniprune.methods.v2drop import V2Drop
from uniprune.modeling.families import find_adapter
from uniprune.pruning.looks import Look, Passage

pytestmark = pytest.mark.end_to_end


def prefill(pruner: Any, family: str = "llava") -> None:
    with prune(build(family), pruner), torch.no_grad():
        build(family)(**inputs(family))


def test_looks_after_the_last_stage_are_not_taken() -> None:
    prefill(Looking())


@pytest.mark.parametrize("pruner", [V2Drop(ratio=0.5, layers=(0, 2)), Looking(at=(Look(-1, "mlp"),))])
def test_layers_outside_the_decoder_are_refused(pruner: Any) -> None:
    with pytest.raises(UserError, match=r"looks at layer -1, but the model's decoder layers are 0\.\.4"):
        prefill(pruner)


def test_layers_with_more_than_attention_and_mlp_are_refused() -> None:
    """Experts beside the MLP: what leaves it is a part of what the layer adds. Whole layers can be looked at."""
    with pytest.raises(UnsupportedError, match=r"consists of self_attn, mlp, .*experts.*: use a method that does not"):
        prefill(TransPrune(ratio=0.5), "gemma4-26b")
    prefill(V2Drop(ratio=0.5), "gemma4-26b")


@pytest.mark.parametrize(
    ("rows", "got"), [(lambda p: p.leaving.mean(1), r"\[1, 64\]"), (lambda p: 3, "int"), (lambda p: p.leaving[0], ".*")]
)
def test_rows_that_are_none_are_refused(rows: Callable[[Passage], Any], got: str) -> None:
    with pytest.raises(PruningError, match=rf"Looking: look\(\) returned {got} for the mlp of layer 1; expected a row"):
        prefill(Looking(answer=rows))


def test_a_look_leaves_the_process_as_it_was() -> None:
    def answer(passage: Passage) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return passage.leaving[..., 0]

    with pytest.raises(PruningError, match=r"Looking at layer 1: look\(\) changed the default dtype"):
        prefill(Looking(answer=answer))
    assert torch.get_default_dtype() == torch.float32


def test_what_a_look_writes_changes_nothing() -> None:
    def answer(passage: Passage) -> Tensor:
        rows = passage.leaving[..., 0].clone()
        for states in (passage.entering, passage.leaving):
            states.zero_()
        return rows

    found = []
    for pruner in (Looking(), Looking(answer=answer)):
        with prune(build("llava"), pruner):
            found.append(generate(build("llava"), inputs("llava"), 2)[1])
    assert torch.equal(*found)


def test_a_part_that_is_not_called_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forward was taken by something else, so that the hook does not see what passes."""
    model = fresh_model("llava")
    mlp = find_adapter(model).layers[1].mlp
    monkeypatch.setattr(type(mlp), "__call__", type(mlp).forward)
    with prune(model, Looking()), pytest.raises(UnsupportedError, match="mlp of layer 1, whose hook did not run"):
        model(**inputs("llava"))


def test_looking_is_time_of_the_method() -> None:
    def answer(passage: Passage) -> Tensor:
        time.sleep(0.05)
        return passage.leaving[..., 0]

    model, x = build("llava"), inputs("llava")
    with Timer(find_adapter(model)) as timer, prune(model, Looking(answer=answer), timer):
        generate(model, x, 2)
        spans = timer.sample()
    assert spans.method >= 0.05
    assert spans.prefill < spans.total - 0.05


@torch.no_grad()
def test_a_turn_is_looked_at_alone() -> None:
    """Words, then the image and the question: V2Drop's choice and the logits of the prompt in one part."""
    model, x = fresh_model("qwen2_5_vl"), inputs("qwen2_5_vl")
    pruner = V2Drop(ratio=0.5, layers=(1, 3), left=(0.5, 0.2), budget="paper")
    names = ("input_ids", "mm_token_type_ids")
    parts = [
        {key: value[:, part] if key in names else value for key, value in x.items() if key != "attention_mask"}
        for part in (slice(None, 3), slice(3, None))
    ]
    with prune(model, pruner) as session:
        cache = model(input_ids=parts[0]["input_ids"], use_cache=True).past_key_values
        got = model(**parts[1], past_key_values=cache).logits[:, -1]
        want = model(**x).logits[:, -1]
    torch.testing.assert_close(got, want, atol=3e-4, rtol=1e-3)
    apart, whole = (report.rows[0].stages for report in session.reports[1:])
    assert [stage.kept[0].tolist() for stage in apart] == [stage.kept[0].tolist() for stage in whole]


@torch.no_grad()
def test_a_prefix_serves_methods_that_look_at_states_but_not_at_the_question() -> None:
    model, x = build("llava"), inputs("llava")
    stop = int((x["input_ids"][0] == IMAGE).nonzero()[-1]) + 2
    start = {name: value[:, :stop] if value.shape == x["input_ids"].shape else value for name, value in x.items()}
    with prune(model, V2Drop(ratio=0.5)) as session:
        prefix = session.prefix(start)
        got = generate(model, prefix.continued(x["input_ids"][:, stop:]), 3)
        want = generate(model, x, 3)
    assert torch.equal(got[0], want[0])
    torch.testing.assert_close(got[1], want[1], atol=2e-4, rtol=1e-3)
    with (
        prune(model, TransPrune(ratio=0.5)) as session,
        pytest.raises(UnsupportedError, match="TransPrune chooses tokens by the question"),
    ):
        session.prefix(start)


@torch.inference_mode()
def test_graphs_hold_the_layers_between_cuts() -> None:
    """The states of the eager prefill, in which the method looked."""
    adapter, pruner = find_adapter(build("llava")), TransPrune(ratio=0.5, layers=(1, 3), left=(0.5, 0.2))
    graphs = PrefillGraphs.of(adapter, pruner, prompts("llava"))
    assert graphs.segments == 3
