"""Decoders whose layers differ in what they attend to, against references that count windows in un-pruned positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.test_llm_views import Evicting, Upcoming
from tests.helpers.layers import Layers
from tests.helpers.oracles import dropped_by, gathered_layers, layerwise_masked, masked, merged_inputs
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import IMAGE, WINDOWED, build, fresh_model, inputs, row, visual
from tests.modeling.test_flops import counted
from uniprune.engine import PromptInfo, prune
from uniprune.engine.windows import smallest_window
from uniprune.errors import UnsupportedError
from uniprune.methods.fastv import FastV
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter

pytestmark = pytest.mark.end_to_end

STEPS = 14
"""More than a window, so that caches of windowed layers drop tokens."""
windowed = pytest.mark.parametrize("family", WINDOWED)
PLANS = [{0: 0.5}, {2: 0.3}, {0: 0.7, 3: 0.3}, {1: 0.0}]


def kernels(family: str) -> tuple[str, ...]:
    """Return the kernels that a family has."""
    return ("eager",) if family == "internvl-gpt_oss" else ("sdpa", "eager")


@windowed
def test_keeping_everything_is_bit_identical(family: str) -> None:
    for kernel in kernels(family):
        model, x = build(family, kernel), inputs(family, (2, 1))
        want = generate(model, x, STEPS)[1]
        with prune(model, Plan(plan={0: 1.0, 2: 1.0})):
            assert torch.equal(generate(model, x, STEPS)[1], want)


@windowed
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_prefill_and_steps_equal_a_hand_written_loop(family: str, plan: dict[int, float]) -> None:
    """The prefill to the bit; and the tokens of a window over what is left would differ."""
    for kernel in kernels(family):
        model, x = build(family, kernel), inputs(family, (2,))
        with prune(model, Plan(plan=plan)) as session, torch.no_grad():
            prompt, logits = model(**x).logits, generate(model, x, STEPS)[1][0]
        keep = {k: ~columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
        want, steps = gathered_layers(model, x, keep, STEPS)
        assert torch.equal(prompt, want)
        torch.testing.assert_close(logits, steps, atol=1e-5, rtol=1e-4)


@windowed
def test_decode_steps_equal_masking(family: str) -> None:
    model, x = build(family, kernels(family)[0]), inputs(family, (2,))
    with prune(model, Plan(plan={0: 0.75, 1: 0.5, 4: 0.2})) as session:
        logits = generate(model, x, STEPS)[1][0]
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    _, want, _ = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS)
    torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-3)


@windowed
def test_rows_of_a_batch_are_rows_alone(family: str) -> None:
    model, images = build(family, kernels(family)[0]), (1, 3, 0)
    x, names = inputs(family, images), [PromptInfo(str(b)) for b in range(len(images))]
    with prune(model, RandomPre(ratio=0.5) >> RandomIntra(ratio=0.3, layer=3)) as session:
        session.samples = tuple(names)
        logits = generate(model, x, STEPS)[1]
        for b, name in enumerate(names):
            session.samples = (name,)
            alone = generate(model, row(family, x, b, images), STEPS)[1]
            torch.testing.assert_close(logits[b], alone[0], atol=2e-4, rtol=1e-3)


@windowed
def test_beams_equal_masking(family: str) -> None:
    model, x = build(family, "eager"), inputs(family, (1, 1))
    options = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 3}
    with prune(model, Plan(plan={0: 0.6, 2: 0.3})) as session:
        got = model.generate(**x, **options)
    with masked(model, dropped_by(session.reports[-1], x)):
        assert torch.equal(got, model.generate(**x, **options))


@windowed
@pytest.mark.parametrize("which", ["layer before", "layer to come"])
def test_llm_attention_is_that_of_the_model(family: str, which: str) -> None:
    """Over the layer's own mask and sinks, also at a stage after another one."""
    x, model = inputs(family, (1, 2)), build(family, kernels(family)[0])
    own = {"llm": True, "layer": 1, "look": lambda view: view.attention("text")}
    coming = {"look": lambda view: view.upcoming("text")}
    before, plan = which == "layer before", {2: 0.5, 4: 0.2}
    probe = Probe(**own, plan=plan, scope="prompt") if before else Upcoming(**coming, plan=plan, scope="prompt")
    with prune(model, probe) as session:
        generate(model, x, 1)
    reference, dropped = build(family, "eager"), dropped_by(session.reports[-1], x)
    text = x["attention_mask"].bool() & (x["input_ids"] != IMAGE)
    for (layer, b), got in probe.seen.items():
        earlier = {k: columns for k, columns in dropped.items() if k < layer}
        with masked(reference, earlier), torch.no_grad():
            weights = reference(**x, output_attentions=True).attentions[layer - before][b]
        arriving = visual(x)[b] & ~torch.stack([c[b] for c in earlier.values()] or [~visual(x)[b]]).any(0)
        torch.testing.assert_close(got, weights[:, text[b]][:, :, arriving], atol=1e-5, rtol=1e-4)


@windowed
@pytest.mark.parametrize("first", [0, 1, 3])
def test_eviction_drops_from_windows_too(family: str, first: int) -> None:
    model, x = build(family, kernels(family)[0]), inputs(family, (2,))
    with prune(model, Evicting(plan={0: 0.9, 3: 0.25}, first=first)) as session:
        logits = generate(model, x, STEPS)[1][0]
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    forgotten = {first: dropped[3]}
    _, want, _ = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS, forgotten)
    torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-3)


def test_eviction_before_a_window_is_full() -> None:
    x, model = inputs("llava-mistral"), fresh_model("llava-mistral", sliding_window=32)
    with prune(model, Evicting(plan={3: 0.25}, first=1)) as session:
        logits = generate(model, x, STEPS)[1][0]
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    _, want, _ = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS, {1: dropped[3]})
    torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-3)


@windowed
def test_static_cache(family: str) -> None:
    """Of windowed layers, too, at a padded batch."""
    model, x = build(family, kernels(family)[0]), inputs(family, (1, 2))
    with prune(model, Plan(plan={0: 0.6, 3: 0.3})):
        want = generate(model, x, STEPS)[0]
        assert torch.equal(want, generate(model, x, STEPS, cache_implementation="static")[0])


@windowed
def test_a_loop_without_position_ids_is_generate(family: str) -> None:
    model, x = build(family, kernels(family)[0]), inputs(family)
    with prune(model, Plan(plan={0: 0.7, 3: 0.3})), torch.no_grad():
        tokens, logits = generate(model, x, STEPS)
        out = model(**x, use_cache=True)
        for step in range(STEPS):
            torch.testing.assert_close(out.logits[:, -1], logits[:, step], atol=1e-5, rtol=1e-5)
            out = model(input_ids=tokens[:, step : step + 1], past_key_values=out.past_key_values, use_cache=True)


@windowed
def test_prompt_lookup_decoding(family: str) -> None:
    model, x = build(family, kernels(family)[0]), inputs(family)
    with prune(model, Plan(plan={0: 0.7, 3: 0.3})):
        want = generate(model, x, STEPS)[0]
        assert torch.equal(want, generate(model, x, STEPS, prompt_lookup_num_tokens=2)[0])


@pytest.mark.parametrize("kinds", [{"full_attention"}, {"sliding_attention"}, {"full_attention", "sliding_attention"}])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_blocks_see_each_other_both_ways(kinds: set[str], kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In layers of the kinds that the adapter names, within the window."""
    family, x = "llava-gemma3_text", inputs("llava-gemma3_text", (1, 2))
    model = build(family, kernel)
    adapter = type(find_adapter(model))
    monkeypatch.setattr(adapter, "block_kinds", frozenset(kinds))
    single = row(family, x, 1, (1, 2))
    with prune(model, Plan(plan={0: 0.6})) as session, torch.no_grad():
        got, padded = model(**single).logits, model(**x).logits
    keep = {0: ~dropped_by(session.reports[0], single)[0][0]}
    want = gathered_layers(model, single, keep, two_way=kinds)[0]
    assert torch.equal(got, want)
    assert padded.isfinite().all()


# --- what is counted ------------------------------------------------------------------------------------------------
@windowed
def test_operations_are_those_torch_counts(family: str) -> None:
    """But for the pairs outside a window, which eager attention computes and masks."""
    model = fresh_model(family, "eager")
    if family == "internvl-gpt_oss":
        model.set_experts_implementation("eager")  # torch does not count the grouped product
    ours, theirs = counted(model, RandomPre(ratio=0.5) >> RandomIntra(ratio=0.3, layer=3), inputs(family, (2,)))
    assert ours == theirs


@pytest.mark.parametrize("family", [*WINDOWED, "qwen3_5"])
def test_bytes_are_those_of_the_cache(family: str) -> None:
    """A windowed layer holds its last tokens, a linear one a state of one size."""
    model, x = build(family, kernels(family)[0]), inputs(family, (2,))
    for plan in ({0: 1.0}, {0: 0.7, 3: 0.3}):
        with prune(model, Plan(plan=plan)) as session, torch.no_grad():
            cache = model(**x, use_cache=True).past_key_values
        parts = [part for layer in cache.layers for part in held(layer)]
        assert session.reports[0].rows[0].kv_bytes == sum(part.numel() * part.element_size() for part in parts)


def held(layer: Any) -> list[Tensor]:
    """Return every tensor in a layer of a cache."""
    values = [value for name, value in vars(layer).items() if not name.startswith("_")]
    values = [one for value in values for one in (value.values() if isinstance(value, dict) else [value])]
    return [value for value in values if isinstance(value, Tensor)]


@pytest.mark.parametrize("block_kinds", [set(), {"sliding_attention"}, {"full_attention", "sliding_attention"}])
@pytest.mark.parametrize("family", [*WINDOWED, "qwen3_5"])
def test_pairs_are_those_of_the_masks(family: str, block_kinds: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every layer; a token counts half with itself, and linear attention has no pairs."""
    model, x, images = build(family, kernels(family)[0]), inputs(family, (1, 2)), (1, 2)
    monkeypatch.setattr(type(find_adapter(model)), "block_kinds", frozenset(block_kinds))
    with prune(model, Plan(plan={0: 0.7, 3: 0.3})) as session, torch.no_grad():
        model(**x)
    for b, report in enumerate(session.reports[0].rows):
        single = row(family, x, b, images)
        first, layers = int((~x["attention_mask"][b].bool()).sum()), Layers(model, single["input_ids"], block_kinds)
        dropped = {k: columns[b, first:] for k, columns in dropped_by(session.reports[0], x).items()}
        for layer, pairs in enumerate(report.pairs):
            earlier = [columns for k, columns in dropped.items() if k <= layer]
            lost = torch.stack([single["input_ids"][0] < 0, *earlier]).any(0)
            at = (~lost).nonzero()[:, 0]
            want = float(layers.pairs(layer, at, at).sum()) - len(at) / 2
            assert pairs == (0 if layers.kinds[layer] == "linear_attention" else want)


# --- position ids -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("plan", [{0: 0.5}, {2: 0.3}], ids=str)
def test_queries_are_scaled_by_the_positions_of_what_is_left(plan: dict[int, float], kernel: str) -> None:
    model, x = build("llava-ministral3", kernel), inputs("llava-ministral3", (2,))
    with prune(model, Plan(plan=plan)) as session, torch.no_grad():
        prompt, logits = model(**x).logits, generate(model, x, STEPS)[1][0]
    keep = {k: ~columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    want, steps = gathered_layers(model, x, keep, STEPS)
    assert torch.equal(prompt, want)
    torch.testing.assert_close(logits, steps, atol=1e-5, rtol=1e-4)


def test_queries_scaled_by_position_are_refused_for_llm_attention() -> None:
    with pytest.raises(UnsupportedError, match=r"scales its queries"), prune(build("llava-ministral3"), FastV()):
        pass


# --- refusals -------------------------------------------------------------------------------------------------------
def refused(match: str, pruner: Any = None, **text: Any) -> None:
    model = fresh_model(text.pop("family", "llava-mistral"), **text)
    with pytest.raises(UnsupportedError, match=match), prune(model, pruner or RandomPre(ratio=0.5)):
        pass


def test_compact_positions_with_a_window_are_refused() -> None:
    refused(r'positions="compact" is not defined for sliding_attention', RandomPre(ratio=0.5, positions="compact"))


def test_kernels_that_count_a_window_themselves_are_refused() -> None:
    refused(r"attn_implementation='flex_attention' does not take", attention="flex_attention")


def test_unknown_kinds_of_layers_are_refused() -> None:
    model = fresh_model("llava-gemma3_text")
    model.get_decoder().config.layer_types = ["chunked_attention"] * 5
    with pytest.raises(UnsupportedError, match=r"the decoder has chunked_attention layers"), prune(model, FastV()):
        pass


def test_capped_logits_are_refused_for_llm_attention() -> None:
    model = fresh_model("llava-gemma3_text")
    model.get_decoder().layers[1].self_attn.attn_logit_softcapping = 50.0
    with prune(model, RandomPre(ratio=0.5)):
        pass
    with pytest.raises(UnsupportedError, match=r"its logits are capped at 50"), prune(model, FastV(layer=2)):
        pass


# --- windows of what methods read -----------------------------------------------------------------------------------
def test_the_smallest_window_is_that_of_the_layer_whose_attention_is_read() -> None:
    config = build("llava-gemma3_text").get_decoder().config  # windows but in layers 2 and 4
    assert smallest_window(config, FastV(layer=2).schedule(5)) == config.sliding_window
    assert smallest_window(config, FastV(layer=3).schedule(5)) is None
    assert smallest_window(config, RandomIntra(layer=2).schedule(5)) is None
    assert smallest_window(build("llava").get_decoder().config, FastV().schedule(5)) is None
