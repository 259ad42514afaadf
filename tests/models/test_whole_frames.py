"""Families whose tower attends to whole frames: its scores, rotated attention of the decoder, and videos."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import dropped_by, masked
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import IMAGE, VIDEO, build, fresh_model, inputs, video_inputs, visual
from uniprune.engine import attention, prune
from uniprune.errors import UnsupportedError
from uniprune.methods.fastv import FastV
from uniprune.methods.random_pre import RandomPre

FAMILIES = ("qwen2_vl", "glm4v", "glm4v_moe", "glm46v")
family = pytest.mark.parametrize("family", FAMILIES)


@family
@pytest.mark.parametrize("layer", [None, 0, 2])
@pytest.mark.parametrize("video", [False, True], ids=["images", "video"])
def test_tower_equals_eager(family: str, layer: int | None, video: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager attention function sees one frame a call; four patches in a row are a token."""
    if video and family != "qwen2_vl":
        pytest.skip("placeholders of a video are image tokens, frame by frame")
    monkeypatch.setattr(attention, "BLOCK", 7)
    x = video_inputs() if video else inputs(family, (1, 2))
    look = {
        "received": lambda view: view.vision.received(layer)[:, None],
        "keys": lambda view: view.vision.keys(layer),
        "hidden": lambda view: view.vision.hidden(layer),
    }
    probe = Probe(look=lambda view: {k: f(view) for k, f in look.items()}, layers=(layer,), plan={0: 0.5})  # type: ignore[arg-type]
    with prune(build(family), probe):
        generate(build(family), x, 1)
    tower, parts = build(family, "eager").base_model.visual, {name: [] for name in look}
    block = tower.blocks[3 if layer is None else layer]
    modeling = sys.modules[type(block.attn).__module__]
    eager = modeling.eager_attention_forward

    def spy(module: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        out = eager(module, query, key, *rest, **options)
        if module is block.attn:
            parts["received"].append(out[1][0].mean((0, 1))[:, None])
            parts["keys"].append(key[0].transpose(0, 1).flatten(1))
        return out

    monkeypatch.setattr(modeling, "eager_attention_forward", spy)

    def see(module: Any, args: Any, kwargs: Any) -> None:
        parts["hidden"].append(args[0] if args else kwargs["hidden_states"])

    handle = block.register_forward_pre_hook(see, with_kwargs=True)
    kind = ("pixel_values_videos", "video_grid_thw") if video else ("pixel_values", "image_grid_thw")
    with torch.no_grad():
        tower(x[kind[0]], grid_thw=x[kind[1]])
    handle.remove()
    for name, pieces in parts.items():
        got, want = torch.cat([seen[name] for seen in probe.seen.values()]), torch.cat(pieces)
        torch.testing.assert_close(got, want.view(len(got), 4, -1).mean(1), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("family", ["glm4v", "glm4v_moe"])
def test_decoder_attention_is_rotated_as_the_model_does(family: str, share: float) -> None:
    """GLM-4.1V rotates pairs, GLM-4.5V halves, both of a part of a head; of a whole one, pairs would fit silently."""
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share}
    rope["mrope_section"] = [2, 1, 1] if share == 0.5 else [2, 3, 3]
    model, x = fresh_model(family, "eager", rope_parameters=rope), inputs(family, (2,))
    look = lambda view: (view.attention("text"), view.attention.keys("text"))  # noqa: E731
    probe = Probe(look=look, llm=True, layer=1, plan={2: 0.5}, scope="prompt")
    with prune(model, probe), torch.no_grad():
        out = model(**x, output_attentions=True, use_cache=True)
    text, (weights, keys) = (x["input_ids"][0] != IMAGE).nonzero()[:, 0], probe.seen[2, 0]
    want = out.attentions[1][0][:, text][:, :, visual(x)[0]]
    torch.testing.assert_close(weights, want, atol=1e-5, rtol=1e-4)
    cached = out.past_key_values.layers[1].keys[0]
    torch.testing.assert_close(keys, cached[:, text].transpose(0, 1).flatten(1), atol=1e-6, rtol=1e-5)


def test_a_decoder_with_an_unknown_rotation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for methods that need it."""
    model = build("qwen2_vl")
    monkeypatch.delattr(sys.modules[type(model.get_decoder().layers[0].self_attn).__module__], "apply_rotary_pos_emb")
    with prune(model, RandomPre(ratio=0.5)):
        pass
    with pytest.raises(UnsupportedError, match=r"rotation of Qwen2VLAttention is unknown"), prune(model, FastV()):
        pass


# --- videos ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("plan", [{}, {0: 0.3}, {2: 0.3}, {0: 0.7, 3: 0.4}], ids=str)
def test_a_video_of_qwen2_vl(kernel: str, plan: dict[int, float]) -> None:
    """One run of placeholders; with nothing pruned equal to the bit."""
    model, x, reference = build("qwen2_vl", kernel), video_inputs(), build("qwen2_vl", "eager")
    with prune(model, Plan(plan=plan)) as session:
        tokens, logits = generate(model, x, 6)
    assert [group.grids for group in session.reports[-1].rows[0].groups] == [((2, 4, 6),)]
    if not plan:
        assert torch.equal(logits, generate(model, x, 6)[1])
    with masked(reference, dropped_by(session.reports[-1], x, VIDEO)):
        want_tokens, want = generate(reference, x, 6)
    assert torch.equal(tokens, want_tokens)
    torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-3)
