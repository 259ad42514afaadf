"""Defects of the field's engines: caches, order, positions, several images, batches. See test_field_defects.py."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import uniprune.engine.prefill as prefill
from tests.helpers import tiny
from tests.helpers.pruners import generate
from tests.helpers.tiny import FAMILIES, LAYERS, build, inputs, row, video_inputs
from uniprune.conformance.method_under_test import traced
from uniprune.engine import PromptInfo, prune
from uniprune.engine.attention import AttentionCapture
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.kept_tokens import Known
from uniprune.engine.prefill import Prefill
from uniprune.methods.dart import DART
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.fitprune import FitPrune
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import IntraLLM, Pruner
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import View

family = pytest.mark.parametrize("family", FAMILIES)


def noticed() -> Any:
    """Expect the check to fail inside this block."""
    return pytest.raises(AssertionError, match=r"^assert |not close")


def visual(x: dict[str, Tensor]) -> Tensor:
    """Return [L], True at the visual tokens of a single prompt."""
    return tiny.visual(x)[0]


# --- 4. keys and values cached twice ----------------------------------------------------------------------------
def check_caches_hold_each_token_once(family: str, pruner: Pruner, steps: int = 4) -> None:
    model, x = build(family), inputs(family)
    with prune(model, pruner) as session:
        out = model.generate(**x, max_new_tokens=steps, do_sample=False, return_dict_in_generate=True)
    text = int((~visual(x)).sum()) + steps - 1
    held = [out.past_key_values.get_seq_length(layer) for layer in range(LAYERS)]
    assert held == [text + count for count in session.reports[0].rows[0].entering]


@family
def test_key_value_pairs_cached_twice(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calling the layer's attention again for its weights, with the live cache, stores layer K - 1 twice."""
    for pruner in (FastV(ratio=0.3), FitPrune(ratio=0.4), PyramidDrop(ratio=0.4), DART(ratio=0.3)):
        check_caches_hold_each_token_once(family, pruner)
    probabilities = AttentionCapture.probabilities

    def with_live_cache(capture: AttentionCapture, *arguments: Any) -> Any:
        rows = list(probabilities(capture, *arguments))
        layer = capture.cache.layers[capture.layer]
        capture.cache.update(layer.keys, layer.values, capture.layer)
        return iter(rows)

    monkeypatch.setattr(AttentionCapture, "probabilities", with_live_cache)
    with noticed():
        check_caches_hold_each_token_once(family, FastV(ratio=0.3))


# --- 5. order and positions are scrambled -----------------------------------------------------------------------
def check_order_and_positions(family: str, pruner: Pruner) -> None:
    """Below and above K, every token has the rotary phase of its place in the whole prompt, and places ascend."""
    model, x = build(family), inputs(family)
    layers = find_adapter(model).layers
    entered: list[Tensor] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        entered.append((args[0] if args else kwargs["hidden_states"])[0])

    handle = layers[pruner.layer].register_forward_pre_hook(note, with_kwargs=True)
    with traced(layers) as whole, torch.no_grad():
        model(**x)
    with prune(model, pruner) as session, traced(layers) as pruned, torch.no_grad():
        model(**x)
    handle.remove()
    states, left = entered
    kept = ~visual(x)
    kept[visual(x).nonzero()[:, 0][session.reports[-1].rows[0].stages[0].kept[0]]] = True
    torch.testing.assert_close(left, states[kept], atol=1e-5, rtol=1e-5)
    for layer in range(LAYERS):
        assert torch.equal(pruned[layer][0], whole[0][0][kept] if layer >= pruner.layer else whole[0][0])


@family
def test_order_and_positions_scrambled(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """UniPruneBench on InternVL orders tokens by falling score and renumbers them from K on."""
    check_order_and_positions(family, FastV(ratio=0.4))
    with noticed():
        check_order_and_positions(family, FastV(ratio=0.4, order="release"))
    gathered = Prefill._gathered

    def renumbered(run: Prefill, layer: int, hidden: Tensor, kwargs: Any, kept: Any) -> dict[str, Any]:
        tables = tuple(table[:, : hidden.shape[1]] for table in kwargs["position_embeddings"])
        return gathered(run, layer, hidden, kwargs, kept) | {"position_embeddings": tables}

    monkeypatch.setattr(Prefill, "_gathered", renumbered)
    with noticed():
        check_order_and_positions(family, FastV(ratio=0.4))


# --- 8. text between images is lost, batches and videos are not handled -----------------------------------------
def check_text_stays(family: str, pruner: Pruner) -> None:
    model, x = build(family), inputs(family, (3,))
    with prune(model, pruner) as session, torch.no_grad():
        out = model(**x, use_cache=True)
    report, text = session.reports[-1].rows[0], int((~visual(x)).sum())
    sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
    assert len(sizes) == 3
    kept = sum(keep_count(size, pruner.ratio) for size in sizes)
    held = [out.past_key_values.get_seq_length(layer) for layer in range(LAYERS)]
    assert held == [text + (kept if layer >= pruner.layer else sum(sizes)) for layer in range(LAYERS)]


@family
def test_text_between_images_lost(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """UniPruneBench treats everything from the first image token to the last as one image."""
    for pruner in (RandomPre(ratio=0.3), FastV(ratio=0.3)):
        check_text_stays(family, pruner)
    dropped, marks = prefill.dropped_on_device, visual(inputs(family, (3,)))
    places = marks.nonzero()[:, 0]
    between = ~marks
    between[: places[0]] = between[places[-1] :] = False

    def without_text_between(*arguments: Any) -> Any:
        whole = dropped(*arguments)
        left = ~between[whole.columns[0]]
        kept = whole.now.kept
        fewer = dataclasses.replace(kept, lengths=(int(left.sum()),), width=int(left.sum()), valid=kept.valid[:, left])
        index = whole.columns[:, left]
        fewer = dataclasses.replace(fewer, source=Known(index.numpy()))
        return dataclasses.replace(whole, columns=index, now=DeviceTokens(fewer, len(marks), index))

    monkeypatch.setattr(prefill, "dropped_on_device", without_text_between)
    with noticed():
        check_text_stays(family, FastV(ratio=0.3))


@dataclass(frozen=True, kw_only=True)
class FirstOfTheBatch(IntraLLM):
    """Apply the ranking of the first row to all rows."""

    chosen: ClassVar[list[Tensor]] = []

    def select(self, view: View, keep: int) -> Tensor:
        self.chosen.append(view.tokens.norm(dim=1).argsort()[:keep])
        return self.chosen[0]


def check_rows_do_not_depend_on_their_batch(pruner: Pruner) -> None:
    model, x = build("llava"), inputs("llava", (1, 1))
    with prune(model, pruner) as session:
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        _, together = generate(model, x, 3)
        for b, sample in enumerate("ab"):
            session.samples = (PromptInfo(sample),)
            _, alone = generate(model, row("llava", x, b, (1, 1)), 3)
            assert torch.allclose(alone[0], together[b], atol=2e-4)


def test_batches_depend_on_their_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most released selections read batch element 0 only."""
    for pruner in (DivPrune(ratio=0.3), FastV(ratio=0.3)):
        check_rows_do_not_depend_on_their_batch(pruner)
    construct = Prefill.__init__

    def clearing(prefill: Prefill, *given: Any) -> None:
        FirstOfTheBatch.chosen.clear()
        construct(prefill, *given)

    monkeypatch.setattr(Prefill, "__init__", clearing)
    with noticed():
        check_rows_do_not_depend_on_their_batch(FirstOfTheBatch(ratio=0.3))


@pytest.mark.parametrize("pruner", [DivPrune(ratio=0.25), FastV(ratio=0.25)], ids=["pre", "intra"])
def test_videos_are_not_pruned(pruner: Pruner) -> None:
    """48 tokens of two frames are one image's worth: a quarter is 12."""
    with prune(build("qwen2_5_vl"), pruner) as session, torch.no_grad():
        build("qwen2_5_vl")(**video_inputs())
    assert session.reports[-1].rows[0].entering[pruner.layer] == 12


# --- 10. single layers that crash -------------------------------------------------------------------------------
@family
@pytest.mark.parametrize("layer", [1, LAYERS - 1])
def test_methods_crash_at_the_first_layer_or_on_one_family(family: str, layer: int) -> None:
    """UniPruneBench's FastV, FitPrune and PyramidDrop crash on Qwen2.5-VL, and at layer 1 everywhere."""
    for pruner in (FastV(ratio=0.5, layer=layer), PyramidDrop(ratio=0.5, layers=(layer,))):
        with prune(build(family), pruner) as session:
            _, logits = generate(build(family), inputs(family, (2,)), 2)
        assert bool(logits.isfinite().all())
        counts = session.reports[-1].rows[0].entering
        assert counts[layer] < counts[layer - 1] == session.reports[-1].rows[0].initial
