"""Every family once: the engine against references that do not use it, and a stored checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from tests.helpers.layers import kind
from tests.helpers.oracles import (
    attention_number,
    deepstack_rows,
    dropped_by,
    gathered_layers,
    layerwise_masked,
    masked,
    merged_inputs,
    physically_short,
)
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import COVERED, IMAGE, LAYERS, build, fresh_model, inputs, row, visual
from tests.modeling.test_flops import counted
from uniprune.engine import PromptInfo, prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter

pytestmark = pytest.mark.end_to_end

STEPS = 6
family = pytest.mark.parametrize("family", COVERED)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])
BOTH = RandomPre(ratio=0.5) >> RandomIntra(ratio=0.3, layer=3)


def further(model: Any, x: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return what references need besides embeddings and positions."""
    return deepstack_rows(model, x), x["input_ids"]


@pytest.mark.sample(2)
@family
@attention
def test_keeping_everything_is_bit_identical(family: str, attention: str) -> None:
    model, x = build(family, attention), inputs(family, (2, 1))
    tokens, logits = generate(model, x, STEPS)
    with prune(model, DivPrune() >> FastV()) as session:
        pruned_tokens, pruned_logits = generate(model, x, STEPS)
    assert torch.equal(tokens, pruned_tokens)
    assert torch.equal(logits, pruned_logits)
    assert not session.reports[-1].pruned


@pytest.mark.sample(2)
@family
@attention
def test_pre_llm_equals_a_shorter_prompt(family: str, attention: str) -> None:
    """To the bit, with the positions of the un-pruned prompt."""
    model, x = build(family, attention), inputs(family, (2,))
    with prune(model, Plan(plan={0: 0.4})) as session:
        tokens, logits = generate(model, x, STEPS)
    keep = ~dropped_by(session.reports[-1], x)[0][0]
    want_tokens, want = physically_short(model, *merged_inputs(model, x), keep, STEPS, *further(model, x))
    assert tokens[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)


@pytest.mark.sample(2)
@family
@attention
@pytest.mark.parametrize("plan", [{0: 0.5, 2: 0.25}, {1: 0.5, 4: 0.0}], ids=str)
def test_prefill_equals_a_hand_written_loop_over_the_layers(
    family: str, attention: str, plan: dict[int, float]
) -> None:
    model, x = build(family, attention), inputs(family, (2,))
    with prune(model, Plan(plan=plan)) as session, torch.no_grad():
        got = model(**x).logits
    keep = {k: ~columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    assert torch.equal(got, gathered_layers(model, x, keep)[0])


@pytest.mark.sample(2)
@family
@attention
def test_decode_steps_equal_masking(family: str, attention: str) -> None:
    model, x = build(family, attention), inputs(family, (2,))
    with prune(model, Plan(plan={0: 0.75, 1: 0.5, 4: 0.2})) as session:
        tokens, logits = generate(model, x, STEPS)
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    if any(kind(model, layer) == "linear_attention" for layer in range(LAYERS)):  # there, nothing can be masked
        want = gathered_layers(model, x, {k: ~columns for k, columns in dropped.items()}, STEPS)[1]
        want_tokens = want.argmax(-1).tolist()
    else:
        more = further(model, x)
        want_tokens, want, _ = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS, None, *more)
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)


@pytest.mark.sample(2)
@family
@attention
def test_rows_of_a_batch_are_rows_alone(family: str, attention: str) -> None:
    model, images = build(family, attention), (1, 3, 0)
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
def test_a_loop_without_position_ids_is_generate(family: str) -> None:
    model, x = build(family), inputs(family)
    with prune(model, BOTH), torch.no_grad():
        tokens, logits = generate(model, x, STEPS)
        out = model(**x, use_cache=True)
        for step in range(STEPS):
            torch.testing.assert_close(out.logits[:, -1], logits[:, step], atol=1e-5, rtol=1e-5)
            out = model(input_ids=tokens[:, step : step + 1], past_key_values=out.past_key_values, use_cache=True)


@family
def test_decoder_attention_equals_eager(family: str) -> None:
    """Also at a stage after another one, and of the layer to come."""
    x = inputs(family, (1, 2))
    look = lambda view: view.attention("text")  # noqa: E731
    probe = Probe(look=look, llm=True, layer=1, plan={2: 0.5, 4: 0.2}, scope="prompt")
    with prune(build(family), probe) as session:
        generate(build(family), x, 1)
    reference, dropped = build(family, "eager"), dropped_by(session.reports[-1], x)
    with masked(reference, dropped), torch.no_grad():
        weights = reference(**x, output_attentions=True).attentions
    tokens, text = visual(x), x["attention_mask"].bool() & (x["input_ids"] != IMAGE)
    for (layer, b), got in probe.seen.items():
        arriving = tokens[b] & ~torch.stack([d[b] for k, d in dropped.items() if k < layer] or [~tokens[b]]).any(0)
        want = weights[attention_number(reference, layer - 1)][b][:, text[b]][:, :, arriving]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@family
def test_keys_projected_again_are_those_of_the_cache(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build(family), inputs(family, (1, 2))
    look = lambda view: view.attention("text")  # noqa: E731
    probe = Probe(look=look, llm=True, layer=1, plan={2: 0.5})
    with prune(model, probe), torch.no_grad():
        model(**x, use_cache=True)
        cached = dict(probe.seen)
        probe.seen.clear()
        monkeypatch.setattr(model.config.get_text_config(), "use_cache", False)
        model(**x)
    for call, rows in cached.items():
        torch.testing.assert_close(rows, probe.seen[call], atol=1e-6, rtol=1e-4)


@family
def test_features_become_the_tokens(family: str) -> None:
    model, x = build(family), inputs(family, (2,))
    look = lambda view: (view.tokens, view.project(view.vision.features(), "vision"))  # noqa: E731
    probe = Probe(look=look, layers=(-1,), plan={0: 0.5})
    with prune(model, probe):
        generate(model, x, 1)
    assert len(probe.seen) == 2
    for tokens, projected in probe.seen.values():
        torch.testing.assert_close(projected, tokens, atol=1e-5, rtol=1e-4)


@family
def test_operations_are_those_torch_counts(family: str) -> None:
    model = fresh_model(family, "eager")
    model.set_experts_implementation("eager")  # torch does not count the grouped product
    # Two images of Pixtral's tower are one masked sequence, whose other half torch counts, and padding; Gemma 4's of
    # unlike sizes are padded.
    images = 1 if hasattr(find_adapter(model).vision, "patch_conv") or "image_position_ids" in inputs(family) else 2
    ours, theirs = counted(model, BOTH, inputs(family, (images,)))
    assert ours == theirs


@family
def test_a_stored_model_is_the_same(family: str, tmp_path: Path) -> None:
    model, x = build(family), inputs(family, (1,))
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    assert type(find_adapter(again)) is type(find_adapter(model))
    with prune(model, BOTH):
        want = generate(model, x, STEPS)[1]
    with prune(again, BOTH):
        assert torch.equal(generate(again, x, STEPS)[1], want)
