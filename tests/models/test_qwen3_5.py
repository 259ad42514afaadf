"""Qwen3.5: linear attention in most layers, and pruning points moved to where attention exists."""

from __future__ import annotations

import pytest
import torch

from tests.engine.test_llm_views import Evicting, Upcoming
from tests.helpers.oracles import attention_number, dropped_by, masked
from tests.helpers.pruners import Plan, generate
from tests.helpers.tiny import IMAGE, build, inputs, small, visual
from uniprune.engine import prune
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods.fastv import FastV
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.random_intra import RandomIntra
from uniprune.modeling.flops import CostModel

pytestmark = pytest.mark.end_to_end

STEPS = 6


@pytest.mark.parametrize(("layer", "used"), [(2, 2), (3, 4), (1, 2)])
def test_a_method_prunes_where_the_attention_that_it_reads_exists(layer: int, used: int) -> None:
    """Attention is in layers 1 and 3, so a method that reads that of layer K - 1 prunes at 2 or 4."""
    model, x = build("qwen3_5"), inputs("qwen3_5")
    with prune(model, FastV(ratio=0.5, layer=layer)) as session, torch.no_grad():
        model(**x)
    report, row = session.reports[0], session.reports[0].rows[0]
    assert session.moved == [(layer, used)] * (layer != used)
    assert report.layers == (used,)
    assert row.entering == [24] * used + [12] * (5 - used)


def test_methods_that_read_no_attention_stay() -> None:
    with prune(build("qwen3_5"), RandomIntra(ratio=0.5, layer=3)) as session:
        assert session.moved == []


def test_the_record_has_the_layers_used_and_those_of_the_method() -> None:
    spec = MethodSpec("fastv", layer=3)
    record = spec.record(spec.pruner(), small("qwen3_5").adapter.attends)
    assert [layer for layer, _ in record.stages] == [4]
    assert record.moved == [(3, 4)]
    assert "prunes before layer 4 instead of 3" in str(record.move_note)


def test_upcoming_attention_is_that_of_the_layer() -> None:
    x = inputs("qwen3_5", (1, 2))
    probe = Upcoming(look=lambda view: view.upcoming("text"), plan={1: 0.5, 3: 0.3}, scope="prompt")
    with prune(build("qwen3_5"), probe) as session:
        generate(build("qwen3_5"), x, 1)
    reference, dropped = build("qwen3_5", "eager"), dropped_by(session.reports[-1], x)
    text = x["attention_mask"].bool() & (x["input_ids"] != IMAGE)
    for (layer, b), got in probe.seen.items():
        earlier = {k: columns for k, columns in dropped.items() if k < layer}
        with masked(reference, earlier), torch.no_grad():
            weights = reference(**x, output_attentions=True).attentions[attention_number(reference, layer)][b]
        arriving = visual(x)[b] & ~torch.stack([c[b] for c in earlier.values()] or [~visual(x)[b]]).any(0)
        torch.testing.assert_close(got, weights[:, text[b]][:, :, arriving], atol=1e-5, rtol=1e-4)


def test_pyramiddrop_prunes_at_layers_with_attention() -> None:
    with prune(build("qwen3_5"), PyramidDrop(ratio=0.5, layer=2)) as session, torch.no_grad():
        build("qwen3_5")(**inputs("qwen3_5"))
    assert set(session.reports[0].layers) <= {1, 3}


def test_eviction_leaves_the_state_of_linear_layers() -> None:
    """Layers with keys forget the tokens; what a state has taken in stays."""
    model, x = build("qwen3_5"), inputs("qwen3_5", (2,))
    with prune(model, Evicting(plan={0: 0.9, 4: 0.25}, first=1)) as session, torch.no_grad():
        evicted = model(**x, use_cache=True).past_key_values
    with prune(model, Plan(plan={0: 0.9, 4: 0.25})), torch.no_grad():
        kept = model(**x, use_cache=True).past_key_values
    left = session.reports[0].rows[0].lengths[4]
    assert [evicted.layers[layer].keys.shape[-2] for layer in (1, 3)] == [left, left]
    for layer in (0, 2, 4):
        states = [cache.layers[layer].recurrent_states[0] for cache in (evicted, kept)]
        assert torch.equal(*states)


def test_static_cache() -> None:
    model, x = build("qwen3_5"), inputs("qwen3_5", (1, 2))
    with prune(model, Plan(plan={0: 0.6, 3: 0.3})):
        want = generate(model, x, STEPS)[0]
        assert torch.equal(want, generate(model, x, STEPS, cache_implementation="static")[0])


def test_a_linear_layer_costs_the_same_for_every_token() -> None:
    costs = CostModel(small("qwen3_5").adapter)
    linear = [costs.decoder([n, 0, 0, 0, 0], [0.0] * 5) - costs.decoder([0] * 5, [0.0] * 5) for n in (1, 10, 100)]
    assert [one // linear[0] for one in linear] == [1, 10, 100]
