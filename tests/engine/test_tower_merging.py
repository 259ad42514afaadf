"""Merging inside the blocks of a vision tower equals a hand-written loop over its blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tests.engine.test_tower_stage import entering, seen
from tests.helpers.oracles import dropped_by, merged_inputs, physically_short
from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from tests.modeling.test_flops import counted
from uniprune.conformance.state import weights
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.methods.fastv import FastV
from uniprune.methods.tome import ToMe
from uniprune.modeling.families import find_adapter

FAMILIES = ("llava", "llava-siglip-qwen2")
METHOD = ToMe(ratio=0.4)


def merge(states: Tensor, keys: Tensor, sizes: list[float], slots: list[int], count: int, cls: int) -> Any:
    """Merge `count` tokens, one after the other; return states, sizes and slots of what is left."""
    edges = []
    for a in range(0, len(slots), 2):
        alike = [(float(cosine_similarity(keys[a], keys[b], dim=0)), -b) for b in range(1, len(slots), 2)]
        if a >= cls:
            edges.append((*max(alike), a))
    chosen = {a: -b for _, b, a in sorted(edges, key=lambda edge: -edge[0])[:count]}
    groups = {i: [i, *(a for a, b in chosen.items() if b == i)] for i in range(len(slots)) if i not in chosen}
    totals = [sum(sizes[j] for j in group) for group in groups.values()]
    means = [
        sum(sizes[j] * states[j] for j in group) / total for group, total in zip(groups.values(), totals, strict=True)
    ]
    return torch.stack(means), totals, [slots[i] for i in groups]  # type: ignore[arg-type]  # sums of tensors


@torch.no_grad()
def loop(model: Any, states: Tensor, first: int, rates: list[int]) -> tuple[Tensor, list[int]]:
    """Run a tower on one image [cls + patches, C]; return the states and the slots of the tokens that are left."""
    adapter = find_adapter(model)
    cls, heads = int(adapter.has_cls), adapter.vision.config.num_attention_heads
    sizes, slots = [1.0] * len(states), list(range(len(states)))
    for number, block in enumerate(adapter.vision_blocks()[: adapter.last_block() + 1]):
        own, normed = block.self_attn, block.layer_norm1(states)
        q, k, v = (
            part(normed).unflatten(-1, (heads, -1)).transpose(0, 1) for part in (own.q_proj, own.k_proj, own.v_proj)
        )
        logits = q @ k.transpose(1, 2) * own.scale + torch.tensor(sizes).log()
        states = states + own.out_proj((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
        if number >= first:
            states, sizes, slots = merge(states, k.mean(0), sizes, slots, rates[number - first], cls)
        states = states + block.mlp(block.layer_norm2(states))
    return states[cls:], [slot - cls for slot in slots[cls:]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_merging_equals_a_loop(family: str, block: int, attention: str) -> None:
    model, x = build(family, attention), inputs(family, (2, 1))
    states, _ = entering(model, x)  # transformers adds hooks of its own in a model's first forward
    before, adapter = weights(model), find_adapter(model)
    _, kept, features = seen(model, x, replace(METHOD, block=block))
    assert weights(model) == before
    rates = list(METHOD.plan(16, 6, adapter.last_block() + 1 - block))
    assert sum(rates) == 10
    for image, (cells, found) in enumerate(zip(kept, features, strict=True)):
        want, slots = loop(model, states[image], block, rates)
        assert cells.tolist() == slots
        torch.testing.assert_close(found[cells], adapter.project(want), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_language_model_gets_the_merged_tokens(family: str) -> None:
    model, x = build(family), inputs(family, (2,))
    with prune(model, METHOD) as session:
        tokens, logits = generate(model, x, 4)
        with torch.no_grad():
            embeds, positions = merged_inputs(model, x)
    keep = ~dropped_by(session.reports[0], x)[0][0]
    assert session.reports[0].rows[0].entering == [12] * 5
    want_tokens, want = physically_short(model, embeds, positions, keep, 4, (), x["input_ids"])
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pruner", [METHOD, replace(METHOD, block=1) >> FastV(ratio=0.5), ToMe(ratio=0.5, r=3)])
def test_its_operations_are_those_torch_counts(pruner: Any) -> None:
    with torch.no_grad():
        ours, theirs = counted(build("llava", "eager"), pruner, inputs("llava", (2,)))
    assert ours.projector == theirs.projector
    assert 0 <= theirs.vision - ours.vision < 0.1 * theirs.vision, (
        "similarities of keys are the method's, not the tower's"
    )


def test_a_number_per_block_gives_the_tokens() -> None:
    model, x = build("llava"), inputs("llava")
    report, _, _ = seen(model, x, ToMe(ratio=0.5, r=3))
    assert report.rows[0].entering[0] == 16 - 3 - 3 - 3
    report, _, _ = seen(model, x, ToMe(ratio=0.5, r=9))
    assert report.rows[0].entering[0] == 2


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl", "gemma3"])
def test_towers_with_mergers_are_refused_by_name(family: str) -> None:
    with pytest.raises(UnsupportedError, match="joins neighbouring patches to tokens after its tower"):
        prune(build(family), METHOD).__enter__()
