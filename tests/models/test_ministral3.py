"""Ministral 3, whose layers scale queries by their positions in the un-pruned prompt: the engine against references."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.oracles import dropped_by, gathered_layers, masked, merged_inputs, physically_short
from tests.helpers.pruners import Plan, generate
from tests.helpers.tiny import WITHOUT_LLM_ATTENTION, build, inputs, row
from uniprune.engine import PromptInfo, prune
from uniprune.errors import UnsupportedError
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_pre import RandomPre

pytestmark = pytest.mark.end_to_end

STEPS = 6
family = pytest.mark.parametrize("family", WITHOUT_LLM_ATTENTION)
kernel = pytest.mark.parametrize("kernel", ["sdpa", "eager"])
BOTH = Plan(plan={0: 0.5, 3: 0.25})


@family
@kernel
def test_prefill_and_decoding_equal_the_references(family: str, kernel: str) -> None:
    model, x = build(family, kernel), inputs(family, (2,))
    want = generate(model, x, STEPS)[1]
    with prune(model, DivPrune()):
        assert torch.equal(generate(model, x, STEPS)[1], want)
    with prune(model, Plan(plan={0: 0.4})) as session:
        logits = generate(model, x, STEPS)[1]
    keep = ~dropped_by(session.reports[-1], x)[0][0]
    assert torch.equal(logits[0], physically_short(model, *merged_inputs(model, x), keep, STEPS)[1])
    for plan in ({0: 0.5, 2: 0.25}, {1: 0.5, 4: 0.0}):
        with prune(model, Plan(plan=plan)) as session, torch.no_grad():
            got = model(**x).logits
            logits = generate(model, x, STEPS)[1]
        dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
        prompt, steps = gathered_layers(model, x, {k: ~columns for k, columns in dropped.items()}, STEPS)
        assert torch.equal(got, prompt)
        torch.testing.assert_close(logits[0], steps, atol=2e-4, rtol=1e-3)


@family
def test_positions_matter(family: str) -> None:
    """With positions of a shorter prompt the queries would have another scale."""
    model, x = build(family), inputs(family, (2,))
    with prune(model, Plan(plan={0: 0.4})) as session:
        logits = generate(model, x, 1)[1]
    keep = ~dropped_by(session.reports[-1], x)[0][0]
    embeds, positions = merged_inputs(model, x)
    short = torch.zeros_like(positions)
    short[:, keep] = torch.arange(int(keep.sum()))[None]
    assert not torch.allclose(logits[0], physically_short(model, embeds, short, keep, 1)[1], atol=1e-2)


@family
@kernel
def test_rows_of_a_batch_are_rows_alone(family: str, kernel: str) -> None:
    model, images = build(family, kernel), (1, 3, 0)
    x, names = inputs(family, images), [PromptInfo(str(b)) for b in range(len(images))]
    with prune(model, BOTH) as session:
        session.samples = tuple(names)
        tokens, logits = generate(model, x, STEPS)
        for b, name in enumerate(names):
            session.samples = (name,)
            alone_tokens, alone = generate(model, row(family, x, b, images), STEPS)
            assert torch.equal(tokens[b], alone_tokens[0])
            torch.testing.assert_close(logits[b], alone[0], atol=2e-4, rtol=1e-3)


@family
def test_beams_equal_masking(family: str) -> None:
    model, x, reference = build(family), inputs(family, (1, 1)), build(family, "eager")
    options = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 3}
    with prune(model, BOTH) as session:
        got = model.generate(**x, **options)
    with masked(reference, dropped_by(session.reports[-1], x)):
        assert torch.equal(got, reference.generate(**x, **options))


@family
def test_methods_that_read_llm_attention_are_refused(family: str) -> None:
    for pruner in (FastV(), RandomPre(ratio=0.5) >> FastV(ratio=0.5)):
        with pytest.raises(UnsupportedError, match="scales its queries by their"), prune(build(family), pruner):
            pass
