"""Pruning by hooks equals its definition: a shorter prompt before the decoder, masked columns inside it."""

import pytest
import torch

from tests.helpers.oracles import deepstack_rows, dropped_by, layerwise_masked, merged_inputs, physically_short
from tests.helpers.pruners import Plan, generate
from tests.helpers.tiny import FAMILIES, IMAGE, LAYERS, build, inputs, visual
from uniprune.engine import prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.none import NoPruning
from uniprune.pruning.base import Pruner

pytestmark = pytest.mark.end_to_end

STEPS = 10
family = pytest.mark.parametrize("family", FAMILIES)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])


@family
@attention
@pytest.mark.parametrize("pruner", [NoPruning(), DivPrune() >> FastV()], ids=["none", "ratio-1"])
def test_keeping_everything_is_bit_identical(family: str, attention: str, pruner: Pruner) -> None:
    model, x = build(family, attention), inputs(family, (2, 1))
    tokens, logits = generate(model, x)
    with torch.no_grad():
        full = model(**x).logits
    with prune(model, pruner) as session, torch.no_grad():
        pruned_tokens, pruned_logits = generate(model, x)
        assert torch.equal(full, model(**x).logits)
    assert torch.equal(tokens, pruned_tokens)
    assert torch.equal(logits, pruned_logits)
    assert not session.reports[-1].pruned
    assert all(row.average_ratio == 1 for row in session.reports[-1].rows)


@family
@attention
@pytest.mark.parametrize(("ratio", "images"), [(0.5, 1), (0.1, 3), (0.0, 1)])
def test_pre_llm_equals_a_shorter_prompt(family: str, attention: str, ratio: float, images: int) -> None:
    model, x = build(family, attention), inputs(family, (images,))
    with prune(model, Plan(plan={0: ratio})) as session:
        tokens, logits = generate(model, x, STEPS)
    keep = ~dropped_by(session.reports[-1], x)[0][0]
    assert int(keep.sum()) < x["input_ids"].shape[1]
    added = deepstack_rows(model, x)
    want_tokens, want = physically_short(model, *merged_inputs(model, x), keep, STEPS, added)
    assert tokens[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)


@pytest.mark.parametrize("family", ["llava", "internvl"])
@pytest.mark.parametrize("manual", [False, True])
def test_compact_positions_equal_a_renumbered_prompt(family: str, manual: bool) -> None:
    model, x = build(family), inputs(family)
    with prune(model, Plan(plan={0: 0.25}, positions="compact")) as session, torch.no_grad():
        tokens, logits = generate(model, x, STEPS)
        if manual:
            out = model(**x, use_cache=True)
            steps = [out.logits[:, -1]]
            for _ in range(STEPS - 1):
                token = steps[-1].argmax(-1, keepdim=True)
                out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
                steps.append(out.logits[:, -1])
            logits = torch.stack(steps, 1)
    keep = ~dropped_by(session.reports[-1], x)[0][0]
    short = merged_inputs(model, x)[0][:, keep]
    everything = torch.ones(short.shape[1], dtype=torch.bool)
    want_tokens, want = physically_short(model, short, torch.arange(short.shape[1])[None], everything, STEPS)
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-5)


PLANS = [{2: 0.25}, {1: 0.5, 3: 0.25}, {4: 0.1}, {0: 0.5, 2: 0.25}, {0: 0.75, 1: 0.5, 4: 0.0}, {2: 0.0}]


def check_masking(model: object, x: dict[str, torch.Tensor], pruner: Pruner) -> None:
    """Prefill and every decode step equal a run that keeps all tokens but masks the dropped ones, layer by layer."""
    with prune(model, pruner) as session, torch.no_grad():
        tokens, logits = generate(model, x, STEPS)
        hidden = model.base_model(**x).last_hidden_state  # type: ignore[attr-defined]
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    added = deepstack_rows(model, x)
    want_tokens, want, prompt = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS, added=added)
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(hidden, prompt[:, ~dropped[max(dropped)]], atol=2e-4, rtol=1e-3)


@pytest.mark.sample(2)
@family
@attention
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_intra_llm_equals_masking(family: str, attention: str, plan: dict[int, float]) -> None:
    check_masking(build(family, attention), inputs(family, (2,)), Plan(plan=plan))


@family
@pytest.mark.parametrize(
    "pruner",
    [FastV(ratio=0.25), DivPrune(ratio=0.5) >> FastV(ratio=0.5, layer=3), FastV(ratio=0.1, scope="prompt")],
    ids=["fastv", "divprune+fastv", "fastv-prompt"],
)
def test_methods_equal_masking(family: str, pruner: Pruner) -> None:
    check_masking(build(family), inputs(family, (2,)), pruner)


@family
def test_cache_really_shrinks(family: str) -> None:
    model, x = build(family), inputs(family)
    length, tokens = x["input_ids"].shape[1], int(visual(x).sum())
    with prune(model, Plan(plan={0: 0.5, 3: 0.25})):
        out = model.generate(**x, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True)
    lengths = [out.past_key_values.get_seq_length(layer) for layer in range(LAYERS)]
    rest = length - tokens + STEPS - 1
    assert lengths == [rest + tokens // 2] * 3 + [rest + tokens // 4] * 2


def test_text_between_images_stays() -> None:
    """Everything that is not a visual token survives dropping all visual tokens, in its place."""
    model, x = build("llava"), inputs("llava", (3,))
    with prune(model, Plan(plan={0: 0.0})), torch.no_grad():
        hidden = model.base_model(**x).last_hidden_state
    assert hidden.shape[1] == int((x["input_ids"] != IMAGE).sum())
