"""Vision-tower quantities beyond plain attention equal those of the eager tower."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import Probe, generate
from tests.helpers.tiny import FAMILIES, build, inputs
from uniprune.engine import attention, prune
from uniprune.errors import PruningError, UnsupportedError
from uniprune.modeling.families import find_adapter
from uniprune.pruning.view import View

Layer = int | None


def seen(family: str, look: Callable[[View], Any], layers: tuple[Layer, ...], x: dict[str, Tensor], **more: Any) -> Any:
    """Return the result of `look` for every image of x."""
    probe = Probe(look=look, layers=layers, **{"plan": {0: 0.5}, **more})  # type: ignore[arg-type]
    with prune(build(family), probe):
        generate(build(family), x, 1)
    return list(probe.seen.values())


def pooled(family: str, patches: Tensor) -> Tensor:
    """Pool [images, patches, C] to [images, tokens, C]: InternVL merges 2 x 2 patches of its 8 x 8 grid."""
    if family == "llava":
        return patches
    return patches.view(len(patches), 4, 2, 4, 2, -1).mean((2, 4)).flatten(1, 2)


def from_others(among: Tensor) -> Tensor:
    """Return the means of the columns of `among` [..., S, S], without the diagonal."""
    return (among.sum(-2) - among.diagonal(dim1=-2, dim2=-1)) / (among.shape[-1] - 1)


def eager_tower(family: str, layer: int, x: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (attention [B, H, S, S], block output, joint q, joint k) of one block of a CLIP-like tower."""
    tower = build(family, "eager").base_model.vision_tower
    block = (tower.encoder.layers if family == "llava" else tower.encoder.layer)[layer]
    module = block.self_attn if family == "llava" else block.attention
    names = ("q_proj", "k_proj") if family == "llava" else ("q_norm", "k_norm")
    got: dict[str, Tensor] = {}
    handles = [
        getattr(module, name).register_forward_hook(lambda m, a, out, name=name: got.update({name: out}))
        for name in names
    ]
    handles.append(block.register_forward_hook(lambda m, a, out: got.update(block=out)))
    with torch.no_grad():
        weights = tower(x["pixel_values"], output_attentions=True).attentions[layer]
    for handle in handles:
        handle.remove()
    output = got["block"]
    return weights, output[0] if isinstance(output, tuple) else output, got[names[0]], got[names[1]]


@pytest.mark.parametrize("family", ["llava", "internvl"])
@pytest.mark.parametrize("layer", [None, -1, 0])
def test_clip_like_towers(family: str, layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 5)
    x = inputs(family, (1, 2))
    index = {"llava": -2, "internvl": -1}[family] if layer is None else layer
    weights, _, query, key = eager_tower(family, index, x)
    among = weights[:, :, 1:, 1:].mean(1)
    joint = (query[:, :1] @ key.transpose(1, 2) / key.shape[-1] ** 0.5).softmax(-1)[:, 0, 1:]
    heads = key.unflatten(-1, (weights.shape[1], -1)).mean(-2)[:, 1:]
    want = {
        "exchanged": torch.stack((among.mean(2), among.mean(1)), dim=-1),
        "from_others": from_others(among)[..., None],
        "importance": weights[:, :, 0, 1:].mean(1)[..., None],
        "joint": joint[..., None],
        "keys": heads,
    }
    got = seen(
        family,
        lambda view: {
            "exchanged": view.vision.exchanged(layer).T,
            "from_others": view.vision.from_others(layer)[:, None],
            "importance": view.vision.importance(layer)[:, None],
            "joint": view.vision.importance(layer, joint=True)[:, None],
            "keys": view.vision.keys(layer, head_mean=True),
        },
        (layer,),
        x,
    )
    for name, patches in want.items():
        for expected, image in zip(pooled(family, patches), got, strict=True):
            torch.testing.assert_close(image[name], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [None, 0])  # None is the last full-attention block, 0 is windowed
def test_qwen_tower(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and columns summed from the eager weights; patches grouped and un-windowed by the model's own index."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling
    from transformers.vision_utils import get_vision_window_index

    monkeypatch.setattr(attention, "BLOCK", 7)
    x = inputs("qwen2_5_vl", (1, 2))
    look = {
        "exchanged": lambda view: view.vision.exchanged(layer).T,
        "from_others": lambda view: view.vision.from_others(layer)[:, None],
        "importance": lambda view: view.vision.importance(layer)[:, None],
        "keys": lambda view: view.vision.keys(layer, head_mean=True),
    }
    got = seen("qwen2_5_vl", lambda view: {name: f(view) for name, f in look.items()}, (layer,), x)
    tower = build("qwen2_5_vl", "eager").base_model.visual
    parts: dict[str, list[Tensor]] = {name: [] for name in look}
    eager = modeling.eager_attention_forward

    def spy(module: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        out = eager(module, query, key, *rest, **options)
        if module is tower.blocks[3 if layer is None else layer].attn:
            among = out[1][0].mean(0)
            parts["exchanged"].append(torch.stack((among.mean(1), among.mean(0)), dim=-1))
            parts["from_others"].append(from_others(among)[:, None])
            parts["importance"].append(among.mean(0)[:, None])
            parts["keys"].append(key[0].mean(0))
        return out

    monkeypatch.setattr(modeling, "eager_attention_forward", spy)
    with torch.no_grad():
        tower(x["pixel_values"], grid_thw=x["image_grid_thw"])
    index, _ = get_vision_window_index(x["image_grid_thw"], 2, 56, 14)
    for name, pieces in parts.items():
        patches = torch.cat(pieces)
        want = patches.view(len(patches) // 4, 4, -1).mean(1)[index.argsort()]
        torch.testing.assert_close(torch.cat([image[name] for image in got]), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", ["image", "prompt"])
def test_projecting_the_features_gives_the_tokens(family: str, scope: str) -> None:
    """Also for a few features in another order: the projector works token by token."""
    some = torch.tensor([7, 2, 5])

    def look(view: View) -> tuple[Any, ...]:
        features = view.features("vision")
        parts = view.project(features, "vision"), view.project(features[some], "vision")
        return *parts, view.tokens, view.features("llm"), view.vision.patches

    for everything, few, tokens, same, patches in seen(family, look, (), inputs(family, (1, 2)), scope=scope):
        torch.testing.assert_close(everything, tokens, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(few, tokens[some], atol=1e-5, rtol=1e-4)
        assert same is tokens
        assert patches == (1 if "llava" in family else 4)


def test_projecting_again_is_invisible() -> None:
    """Neither hooks on the projector nor what was captured of it change."""
    model, calls = build("llava"), []
    handle = model.base_model.multi_modal_projector.register_forward_hook(lambda *_: calls.append(1))
    look = lambda view: (view.vision.project(view.vision.features()[:3] * 0), view.vision.features())  # noqa: E731
    ((_, after),) = seen("llava", look, (), inputs("llava"))
    handle.remove()
    assert len(calls) == 1
    assert bool(after.any())


@pytest.mark.parametrize("scope", ["image", "prompt"])
def test_class_tokens(scope: str) -> None:
    x = inputs("llava", (1, 2))
    _, output, _, _ = eager_tower("llava", -2, x)
    got = seen("llava", lambda view: view.vision.cls_tokens(), (None,), x, scope=scope)
    assert [len(image) for image in got] == ([1, 1, 1] if scope == "image" else [1, 2])
    torch.testing.assert_close(torch.cat(got), output[:, 0], atol=1e-5, rtol=1e-4)


def test_default_blocks() -> None:
    assert {family: find_adapter(build(family)).block_index(None) for family in FAMILIES} == {
        "llava": 2,  # of 4: `hidden_states[-2]` is the output of the last but one
        "llava_next": 2,
        "internvl": 3,
        "qwen2_5_vl": 3,
    }


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_class_tokens_that_cannot_be_projected(family: str) -> None:
    with pytest.raises(UnsupportedError, match="4 patches at a time"):
        seen(family, lambda view: view.vision.cls_tokens(), (None,), inputs(family))


def test_uncaptured_default_layer() -> None:
    with pytest.raises(PruningError, match="vision layer 2 was not captured"):
        seen("llava", lambda view: view.vision.importance(), (-1,), inputs("llava"))
