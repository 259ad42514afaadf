"""Attention kernels and compiled forwards: equal to sdpa and un-compiled, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import CompileConfig

from tests.helpers.oracles import dropped_by
from tests.helpers.pruners import KINDS, Plan, generate
from tests.helpers.tiny import FAMILIES, build, fresh_model, inputs
from uniprune.engine import prune
from uniprune.engine.served import KERNELS, check_untraced
from uniprune.errors import UnsupportedError
from uniprune.methods.random_pre import RandomPre

pytestmark = pytest.mark.end_to_end

STEPS = 6
PLAN = Plan(plan={0: 0.6, 3: 0.3})
SAMPLED = {("llava", "attention"), ("llava_next", "both")}
CASES = [
    pytest.param(family, kind, marks=() if (family, kind) in SAMPLED else pytest.mark.exhaustive)
    for family in FAMILIES
    for kind in KINDS
]
exhaustive = pytest.mark.exhaustive


# --- kernels ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_flex_attention_chooses_and_answers_as_sdpa(family: str, kind: str) -> None:
    """Not compiled: on the CPU that takes minutes, and needs a compiler."""
    model, x = build(family), inputs(family, (1, 2))
    if not type(model)._supports_flex_attn:
        pytest.skip("the family has no such kernel")
    with prune(model, KINDS[kind]) as session:
        tokens, logits = generate(model, x, STEPS)
    flex = fresh_model(family, "flex_attention")
    flex.load_state_dict(model.state_dict())
    with torch.compiler.set_stance("force_eager"), prune(flex, KINDS[kind]) as other:
        got_tokens, got = generate(flex, x, STEPS)
    want, found = (dropped_by(one.reports[0], x) for one in (session, other))
    assert want.keys() == found.keys()
    assert all(torch.equal(want[layer], found[layer]) for layer in want)
    assert torch.equal(got_tokens, tokens)
    torch.testing.assert_close(got, logits, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kernel", ["flash_attention_4", "paged|sdpa", "kernels-community/flash-attn2", "mine"])
def test_kernels_that_were_not_tried_are_refused(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At entry, and where a model's kernel is changed inside the block, as continuous batching does."""
    model, x = build("llava"), inputs("llava")
    message = rf"attn_implementation='{kernel}' .* was not tried .* {', '.join(KERNELS)}".replace("|", r"\|")
    with prune(model, RandomPre(ratio=0.5)) as session:
        monkeypatch.setattr(model.get_decoder().config, "_attn_implementation_internal", kernel)
        with pytest.raises(UnsupportedError, match=message):
            model(**x)
        assert session.reports == []
    with pytest.raises(UnsupportedError, match=message), prune(model, RandomPre(ratio=0.5)):
        pass


# --- compiled forwards ------------------------------------------------------------------------------------------
def test_compiled_models_are_refused() -> None:
    model = fresh_model("llava")
    wrapped = torch.compile(model, backend="eager")
    with pytest.raises(UnsupportedError, match=r"torch\.compile"), prune(wrapped, RandomPre(ratio=0.5)):
        pass
    model.get_decoder().layers[1].compile(backend="eager")
    with pytest.raises(UnsupportedError, match=r"torch\.compile"), prune(model, RandomPre(ratio=0.5)):
        pass


@pytest.fixture
def compiling() -> Iterator[dict[str, Any]]:
    """Arguments under which `generate` compiles decode steps on the CPU as it does on a GPU, without Inductor."""
    config = CompileConfig(backend="eager", mode=None, fullgraph=False)
    config._compile_all_devices = True
    yield {"cache_implementation": "static", "compile_config": config}
    torch._dynamo.reset()


def test_decode_steps_that_generate_would_compile_are_refused(compiling: dict[str, Any]) -> None:
    """In the prefill: a graph made without the session would run without its hooks."""
    model, x = fresh_model("llava"), inputs("llava")
    with prune(model, PLAN) as session:
        want = generate(model, x, STEPS)[0]
        with pytest.raises(UnsupportedError, match=r"compiles the decode steps .* pass disable_compile=True"):
            generate(model, x, STEPS, **compiling)
        with pytest.raises(UnsupportedError, match=r"`del model\._compiled_call`"):
            generate(model, x, STEPS, **compiling, disable_compile=True)
        del model._compiled_call
        assert torch.equal(generate(model, x, STEPS, **compiling, disable_compile=True)[0], want)
        assert torch.equal(generate(model, x, STEPS)[0], want)
    assert len(session.reports) == 3


@exhaustive
def test_graphs_of_an_earlier_call_are_not_used(compiling: dict[str, Any]) -> None:
    """They were: positions and masks of the un-pruned prompt on a pruned cache, and other answers without an error."""
    model, x = fresh_model("llava"), inputs("llava")
    bare = generate(model, x, STEPS)[0]
    assert torch.equal(generate(model, x, STEPS, **compiling)[0], bare)
    with prune(model, PLAN):
        want = generate(model, x, STEPS)[0]
        with pytest.raises(UnsupportedError, match="compiles the decode steps"):
            generate(model, x, STEPS, **compiling)
        del model._compiled_call
        with pytest.raises(UnsupportedError, match="compiles the decode steps"):
            generate(model, x, STEPS, **compiling)
        del model._compiled_call
        assert torch.equal(generate(model, x, STEPS, cache_implementation="static")[0], want)
    assert torch.equal(generate(model, x, STEPS, **compiling)[0], bare)


def test_hooks_refuse_to_be_compiled() -> None:
    with pytest.raises(UnsupportedError, match=r"inside a function compiled by torch\.compile"):
        torch.compile(lambda x: (check_untraced(), x + 1)[1], backend="eager")(torch.ones(1))
    torch._dynamo.reset()
    check_untraced()


@exhaustive
def test_a_compiled_call_of_the_model_is_refused() -> None:
    model, x = fresh_model("llava"), inputs("llava")
    with (
        prune(model, PLAN),
        pytest.raises(UnsupportedError, match=r"inside a function compiled by torch\.compile"),
        torch.no_grad(),
    ):
        torch.compile(model, backend="eager")(**x)
    torch._dynamo.reset()


def test_layers_that_run_without_their_hook_are_refused() -> None:
    model, x = fresh_model("llava"), inputs("llava")
    with prune(model, PLAN) as session, torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        decoder = model.get_decoder()
        decoder.layers = decoder.layers[:4]
        with pytest.raises(UnsupportedError, match="4 of 5 hooks on decoder layers ran"):
            model(**x)
        with pytest.raises(UnsupportedError, match="1 of 2 hooks on decoder layers ran"):
            model(input_ids=x["input_ids"][:, -1:], past_key_values=cache)
    assert len(session.reports) == 1


@exhaustive
def test_a_decoder_compiled_before_entry_is_refused() -> None:
    """Nothing was pruned, and the report named the un-pruned prompt as what the method had left."""
    model, x = fresh_model("llava"), inputs("llava")
    decoder = model.get_decoder()
    decoder.forward = torch.compile(decoder.forward, backend="eager")
    with torch.no_grad():
        model(**x)
        with prune(model, PLAN) as session, pytest.raises(UnsupportedError, match="0 of 5 hooks on decoder layers"):
            model(**x)
    assert session.reports == []
    torch._dynamo.reset()
