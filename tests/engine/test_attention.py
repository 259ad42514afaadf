"""Attention recomputed on demand equals what eager attention returns, in the decoder and in the vision towers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import dropped_by, masked
from tests.helpers.pruners import Probe, generate
from tests.helpers.tiny import FAMILIES, IMAGE, build, inputs
from tests.helpers.tiny import visual as tokens_of
from uniprune.engine import PromptInfo, attention, prune
from uniprune.errors import PruningError, UnsupportedError
from uniprune.pruning.view import View

family = pytest.mark.parametrize("family", FAMILIES)
square = pytest.mark.parametrize("family", ["llava", "internvl"])


@family
@pytest.mark.parametrize("rows", ["last", "text", "prompt", "visual", torch.tensor([0, 2])], ids=str)
@pytest.mark.parametrize("plan", [{1: 0.5}, {2: 0.5, 3: 0.25, 4: 0.1}], ids=str)
def test_decoder_rows_equal_eager(
    family: str, rows: Any, plan: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK", 5)
    images, question = (1, 2), torch.tensor([7, 8, 9])
    x = inputs(family, images)
    x["input_ids"][:, -4:-1] = question
    probe = Probe(look=lambda view: view.attention(rows), llm=True, layer=1, plan=plan, scope="prompt")
    with prune(build(family), probe) as session:
        session.samples = (PromptInfo("a", question), PromptInfo("b", question))
        generate(build(family), x, 1)
    reference = build(family, "eager")
    dropped = dropped_by(session.reports[-1], x)
    with masked(reference, dropped), torch.no_grad():
        weights = reference(**x, output_attentions=True).attentions
    visual, real = tokens_of(x), x["attention_mask"].bool()
    for (layer, b), got in probe.seen.items():
        arriving = visual[b] & ~torch.stack([d[b] for k, d in dropped.items() if k < layer] or [~visual[b]]).any(0)
        text = (real[b] & (x["input_ids"][b] != IMAGE)).nonzero()[:, 0]
        length = x["input_ids"].shape[1]
        places = {"last": text[-1:], "text": text, "prompt": torch.arange(length - 4, length - 1)}
        places["visual"] = arriving.nonzero()[:, 0]
        queries = text[rows] if isinstance(rows, Tensor) else places[rows]
        want = weights[layer - 1][b][:, queries][:, :, arriving]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@family
def test_decoder_rows_without_cached_keys(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a single forward without a KV cache the keys are projected again."""
    model, x = build(family), inputs(family, (1, 2))
    probe = Probe(look=lambda view: view.attention("text"), llm=True, layer=1, plan={2: 0.5})
    with prune(model, probe), torch.no_grad():
        model(**x, use_cache=True)
        cached = dict(probe.seen)
        probe.seen.clear()
        monkeypatch.setattr(model.config.get_text_config(), "use_cache", False)
        model(**x)
    for call, rows in cached.items():
        torch.testing.assert_close(rows, probe.seen[call], atol=1e-6, rtol=1e-4)


LOOKS = {
    "received": lambda view, layer: view.vision.received(layer),
    "cls": lambda view, layer: view.vision.cls(layer),
    "keys": lambda view, layer: view.vision.keys(layer),
    "hidden": lambda view, layer: view.vision.hidden(layer),
}


def seen(family: str, what: str, layers: tuple[int, ...], x: dict[str, Tensor]) -> dict[int, list[Tensor]]:
    """Return {layer: one result per image} as a method reads it."""
    model = build(family)
    probe = Probe(look=lambda view: {n: LOOKS[what](view, n) for n in layers}, layers=layers, plan={0: 0.5})
    with prune(model, probe):
        generate(model, x, 1)
    return {n: [got[n] for got in probe.seen.values()] for n in layers}


def pooled(family: str, patches: Tensor) -> Tensor:
    """Pool [images, patches, C] to [images, tokens, C]: InternVL merges 2 x 2 patches of its 8 x 8 grid."""
    if family == "llava":
        return patches
    return patches.view(len(patches), 4, 2, 4, 2, -1).mean((2, 4)).flatten(1, 2)


@square
@pytest.mark.parametrize("what", LOOKS)
def test_clip_like_towers_equal_eager(family: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 5)
    x, layers = inputs(family, (1, 2)), (-1, -2, 0)
    got = seen(family, what, layers, x)
    tower = build(family, "eager").base_model.vision_tower
    blocks = tower.encoder.layers if family == "llava" else tower.encoder.layer
    keys: dict[int, Tensor] = {}
    handles = []
    for n in layers:
        module = blocks[n].self_attn if family == "llava" else blocks[n].attention
        last = module.k_proj if family == "llava" else module.k_norm
        handles.append(last.register_forward_hook(lambda m, a, out, n=n: keys.update({n: out})))
    with torch.no_grad():
        out = tower(x["pixel_values"], output_attentions=True, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    for n in layers:
        weights = out.attentions[n]
        want = {
            "received": weights.mean((1, 2))[:, 1:, None],
            "cls": weights[:, :, 0, 1:].transpose(1, 2),
            "keys": keys[n][:, 1:],
            "hidden": out.hidden_states[n % len(blocks)][:, 1:],
        }[what]
        for image, values in zip(pooled(family, want), got[n], strict=True):
            image = {"received": image[:, 0], "cls": image.T}.get(what, image)
            torch.testing.assert_close(values, image, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])  # 1 and 3 attend to the whole image, 0 and 2 to windows
@pytest.mark.parametrize("what", ["received", "keys", "hidden"])
def test_qwen_tower_equals_eager(layer: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference replaces the eager attention function and undoes the window order with the model's own index."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling
    from transformers.vision_utils import get_vision_window_index

    monkeypatch.setattr(attention, "BLOCK", 7)
    x = inputs("qwen2_5_vl", (1, 2))
    got = torch.cat(seen("qwen2_5_vl", what, (layer,), x)[layer])
    tower, parts = build("qwen2_5_vl", "eager").base_model.visual, []
    eager = modeling.eager_attention_forward

    def spy(module: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        out = eager(module, query, key, *rest, **options)
        if module is tower.blocks[layer].attn and what != "hidden":
            received = out[1][0].mean((0, 1))[:, None]
            parts.append(received if what == "received" else key[0].transpose(0, 1).flatten(1))
        return out

    monkeypatch.setattr(modeling, "eager_attention_forward", spy)

    def see(module: Any, args: Any, kwargs: Any) -> None:
        if what == "hidden":
            parts.append(args[0] if args else kwargs["hidden_states"])

    handle = tower.blocks[layer].register_forward_pre_hook(see, with_kwargs=True)
    with torch.no_grad():
        tower(x["pixel_values"], grid_thw=x["image_grid_thw"])
    handle.remove()
    index, _ = get_vision_window_index(x["image_grid_thw"], 2, 56, 14)
    patches = torch.cat(parts)
    want = patches.view(len(patches) // 4, 4, -1).mean(1)[index.argsort()]
    torch.testing.assert_close(got, want[:, 0] if what == "received" else want, atol=1e-5, rtol=1e-4)


def test_scores_follow_the_survivors() -> None:
    """At a later stage the vision quantities are those of the remaining tokens."""
    x = inputs("internvl", (1,), tiles=2)
    probe = Probe(
        look=lambda v: (v.cells, v.vision.received(-1), v.vision.cls(-1)), layers=(-1,), plan={0: 0.5, 2: 0.2}
    )
    with prune(build("internvl"), probe):
        generate(build("internvl"), x, 1)
    (everything, received, cls), (cells, later_received, later_cls) = probe.seen.values()
    assert len(everything) == 32
    assert len(cells) == 16
    torch.testing.assert_close(later_received, received[cells])
    torch.testing.assert_close(later_cls, cls[:, cells])


def fails(family: str, look: Any, **options: Any) -> None:
    with prune(build(family), Probe(look=look, plan={0: 0.5, 2: 0.5}, **options)):
        generate(build(family), inputs(family), 1)


def test_asking_for_what_is_not_there() -> None:
    with pytest.raises(UnsupportedError, match="no CLS token"):
        fails("qwen2_5_vl", lambda view: view.vision.cls(-1), layers=(-1,))
    with pytest.raises(PruningError, match="vision layer 3 was not captured; name it in the method's vision_layers"):
        fails("llava", lambda view: view.vision.received(-1), layers=(0,))
    with pytest.raises(PruningError, match="llm_attention = True"):
        fails("llava", lambda view: view.attention("last"))

    def unknown_rows(view: View) -> Any:
        return view.attention("first")  # type: ignore[arg-type]

    probe = Probe(look=unknown_rows, llm=True, layer=1, plan={2: 0.5})
    with pytest.raises(PruningError, match="'first' are unknown"), prune(build("llava"), probe):
        generate(build("llava"), inputs("llava"), 1)
