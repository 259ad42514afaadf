"""Qwen3-VL: deepstack features follow their tokens; the tower; what cannot be right is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import deepstack_rows, dropped_by, merged_inputs, physically_short
from tests.helpers.pruners import FixedAnswer, Plan, Probe, generate
from tests.helpers.tiny import IMAGE, build, fresh_model, inputs
from uniprune.engine import prune
from uniprune.engine.deepstack import Deepstack
from uniprune.engine.vision_batch import supports_sharing
from uniprune.errors import UnsupportedError
from uniprune.methods.fastv import FastV
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.visionzip import VisionZip
from uniprune.pruning.base import Order, Pruner, Selection
from uniprune.pruning.view import View

pytestmark = pytest.mark.end_to_end

STEPS = 6
FAMILY = "qwen3_vl"
PICKS = torch.tensor([9, 2, 13, 4, 0, 21])


# --- deepstack --------------------------------------------------------------------------------------------------
def placed(view: View, keep: int) -> Tensor:
    return PICKS


def merged(view: View, keep: int) -> Selection:
    """Every kept token is the mean of itself and the next one."""
    return Selection(PICKS, (view.tokens[PICKS] + view.tokens[PICKS + 1]) / 2)


@pytest.mark.parametrize("answer", [placed, merged])
@pytest.mark.parametrize("order", ["raster", "release"])
def test_rows_are_those_of_the_token_in_the_slot(answer: Any, order: Order) -> None:
    """Against a prompt that really is shorter: merged tokens have their slot's rows, moved ones keep their own."""
    model, x = build(FAMILY), inputs(FAMILY)
    with prune(model, FixedAnswer(answer=answer, ratio=0.25, order=order)):
        tokens, logits = generate(model, x, STEPS)
    (embeds, positions), added = merged_inputs(model, x), deepstack_rows(model, x)
    places = (x["input_ids"][0] == IMAGE).nonzero()[:, 0]
    sources = places[PICKS if order == "release" else PICKS.sort().values]
    slots = places[PICKS.sort().values]
    new = embeds[0, sources] if answer is placed else (embeds[0, sources] + embeds[0, sources + 1]) / 2
    embeds[0, slots] = new
    for rows in added:
        rows[slots] = rows[sources]
    keep = x["input_ids"][0] != IMAGE
    keep[slots] = True
    want_tokens, want = physically_short(model, embeds, positions, keep, STEPS, added)
    assert tokens[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)


def test_the_rows_matter() -> None:
    """Without them the tests of the engine would prove nothing about them."""
    model, x = build(FAMILY), inputs(FAMILY)
    added = deepstack_rows(model, x)
    assert len(added) == 3
    with prune(model, Plan(plan={0: 0.5})) as session:
        _, logits = generate(model, x, 1)
    keep = ~dropped_by(session.reports[-1], x)[0][0]
    for number in range(3):
        rest = [rows * (level != number) for level, rows in enumerate(added)]
        _, want = physically_short(model, *merged_inputs(model, x), keep, 1, rest if number else rest[1:])
        assert not torch.allclose(logits[0], want, atol=1e-2)


def test_layers_receive_what_the_unpruned_ones_do() -> None:
    """A stage sees the rows of all layers before it, and none of its own layer's."""
    model, x, states = build(FAMILY), inputs(FAMILY, (2, 1)), {}

    def note(module: Any, args: Any) -> None:
        states[module.self_attn.layer_idx] = args[0]

    handles = [layer.register_forward_pre_hook(note) for layer in model.get_decoder().layers]
    with torch.no_grad():
        model(**x)
    for handle in handles:
        handle.remove()
    visual = x["input_ids"] == IMAGE
    for layer in range(1, 5):
        probe = Probe(look=lambda view: view.tokens.clone(), plan={layer: 0.5})
        with prune(model, probe), torch.no_grad():
            model(**x)
        assert torch.equal(torch.cat(list(probe.seen.values())), states[layer][visual])


@pytest.mark.parametrize("pruner", [RandomPre(ratio=0.5), FastV(ratio=0.5, layer=2), VisionZip(ratio=0.4)], ids=str)
def test_shared_features_are_those_of_the_forward(pruner: Pruner) -> None:
    if not supports_sharing(build(FAMILY)):
        pytest.skip("this transformers takes no image features in generate; 5.23 does")
    model, x = build(FAMILY), inputs(FAMILY, (2, 1))
    sizes = x["image_grid_thw"].prod(-1).tolist()
    pictures = zip(x["pixel_values"].split(sizes), x["image_grid_thw"].split(1), strict=True)
    rest = {name: value for name, value in x.items() if name != "pixel_values"}
    with prune(model, pruner) as session, torch.no_grad():
        tokens, logits = generate(model, x, STEPS)
        calls = [session.encode({"pixel_values": pixels, "image_grid_thw": grid}) for pixels, grid in pictures]
        for _ in range(2):  # the same features again
            shared = generate(model, rest, STEPS, mm_encoder_outputs=session.present(calls))
            assert torch.equal(tokens, shared[0])
            torch.testing.assert_close(logits, shared[1], atol=1e-4, rtol=1e-4)
    features = calls[0].output.deepstack_features
    assert calls[0].memory >= sum(part.nbytes for level in features for part in level) + sizes[0] // 4 * 64 * 4


def test_features_that_are_not_one_row_per_placeholder_are_refused() -> None:
    visual = torch.tensor([[False, True, True]])
    with pytest.raises(UnsupportedError, match=r"features of \[3, 2\] tokens to 2 visual placeholders"):
        Deepstack([torch.zeros(3, 4), torch.zeros(2, 4)], visual)


def test_features_after_the_last_layer_are_refused() -> None:
    model = fresh_model(FAMILY, num_hidden_layers=3)
    with pytest.raises(UnsupportedError, match="after 3 decoder layers, but has only 3"), prune(model, Plan()):
        pass


# --- tower ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layer", [0, 3])
def test_tower_equals_eager(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3_vl import modeling_qwen3_vl as modeling

    x = inputs(FAMILY, (1, 2))
    look = {
        "received": lambda view: view.vision.received(layer)[:, None],
        "keys": lambda view: view.vision.keys(layer),
        "hidden": lambda view: view.vision.hidden(layer),
    }
    probe = Probe(look=lambda view: {name: f(view) for name, f in look.items()}, layers=(layer,), plan={0: 0.5})
    with prune(build(FAMILY), probe):
        generate(build(FAMILY), x, 1)
    tower = build(FAMILY, "eager").base_model.visual
    parts: dict[str, list[Tensor]] = {name: [] for name in look}
    eager = modeling.eager_attention_forward

    def spy(module: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        out = eager(module, query, key, *rest, **options)
        if module is tower.blocks[layer].attn:
            parts["received"].append(out[1][0].mean((0, 1))[:, None])
            parts["keys"].append(key[0].transpose(0, 1).flatten(1))
        return out

    monkeypatch.setattr(modeling, "eager_attention_forward", spy)
    note = lambda module, args: parts["hidden"].append(args[0])  # noqa: E731
    handle = tower.blocks[layer].register_forward_pre_hook(note)
    with torch.no_grad():
        tower(x["pixel_values"], grid_thw=x["image_grid_thw"])
    handle.remove()
    for name, pieces in parts.items():
        patches = torch.cat(pieces)
        want = patches.view(len(patches) // 4, 4, -1).mean(1)
        torch.testing.assert_close(
            torch.cat([image[name] for image in probe.seen.values()]), want, atol=1e-5, rtol=1e-4
        )
