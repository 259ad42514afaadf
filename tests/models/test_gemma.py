"""Gemma 3 and Gemma 4: towers, what layers see, their inputs, reused keys; what cannot be right is refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.layers import Layers
from tests.helpers.oracles import dropped_by, gathered_layers, merged_inputs, physically_short
from tests.helpers.pruners import FixedAnswer, Plan, Probe, generate
from tests.helpers.tiny import IMAGE, VIDEO, build, fresh_model, inputs, small
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.methods.fastv import FastV
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import Order, Selection
from uniprune.pruning.view import View

pytestmark = pytest.mark.end_to_end

STEPS = 6
FAMILIES = ("gemma3", "gemma4", "gemma4-26b", "gemma4-e2b")
family = pytest.mark.parametrize("family", FAMILIES)


# --- towers -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gemma3", "gemma4", "gemma4-e2b"])
@pytest.mark.parametrize("layer", [None, 0, 2])
def test_tower_equals_eager(family: str, layer: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of Gemma 4 have different sizes here, so all but one are padded."""
    x = inputs(family, (1, 2))
    look = {
        "received": lambda view: view.vision.received(layer)[:, None],
        "keys": lambda view: view.vision.keys(layer),
        "hidden": lambda view: view.vision.hidden(layer),
    }
    probe = Probe(look=lambda view: {name: f(view) for name, f in look.items()}, layers=(layer,), plan={0: 0.5})
    with prune(build(family), probe):
        generate(build(family), x, 1)
    tower, parts = build(family, "eager").base_model.vision_tower, {}
    block = tower.encoder.layers[3 if layer is None else layer]
    modeling = sys.modules[type(block.self_attn).__module__]
    eager = modeling.eager_attention_forward

    def spy(module: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        out = eager(module, query, key, *rest, **options)
        if module is block.self_attn:
            parts.update(weights=out[1], keys=key.transpose(1, 2).flatten(2))
        return out

    monkeypatch.setattr(modeling, "eager_attention_forward", spy)
    handle = block.register_forward_pre_hook(lambda module, args: parts.update(hidden=args[0]))
    with torch.no_grad():
        build(family, "eager").get_image_features(**pixels_of(x))
    handle.remove()
    for number, (seen, real) in enumerate(zip(probe.seen.values(), real_patches(x), strict=True)):
        columns = torch.arange(len(real))[real]
        weights = parts["weights"][number][:, columns][..., columns].mean((0, 1))[:, None]
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
        want = {"received": weights, "keys": parts["keys"][number, columns], "hidden": parts["hidden"][number, columns]}
        for name, patches in want.items():
            torch.testing.assert_close(seen[name], by_places(x, number, patches), atol=1e-5, rtol=1e-4)


def pixels_of(x: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x[name] for name in ("pixel_values", "image_position_ids") if name in x}


def real_patches(x: dict[str, Tensor]) -> Tensor:
    """[images, patches] False at padding."""
    if "image_position_ids" in x:
        return x["image_position_ids"][..., 0] >= 0
    images, _, height, width = x["pixel_values"].shape
    return torch.ones(images, height * width // 14**2, dtype=torch.bool)


def by_places(x: dict[str, Tensor], image: int, patches: Tensor) -> Tensor:
    """[N, C] means of an image's patches by their (x, y), in raster order."""
    if "image_position_ids" in x:
        places, side = x["image_position_ids"][image], 3
        places = places[places[:, 0] >= 0]
    else:
        count = x["pixel_values"].shape[-1] // 14
        places, side = torch.stack([torch.tensor([i % count, i // count]) for i in range(count**2)]), 2
    cells: dict[tuple[int, int], list[Tensor]] = {}
    for (column, row), patch in zip(places.tolist(), patches, strict=True):
        cells.setdefault((row // side, column // side), []).append(patch)
    return torch.stack([torch.stack(cells[cell]).mean(0) for cell in sorted(cells)])


def test_patches_are_in_the_order_of_the_processor() -> None:
    """Gemma 4's: raster order, the places of a patch first x, then y, padding -1 at the end."""
    from transformers import Gemma4ImageProcessorPil

    image = np.zeros((3, 100, 300), np.uint8)
    made = Gemma4ImageProcessorPil(max_soft_tokens=70)(images=[image], return_tensors="pt")
    adapter = find_adapter(build("gemma4"))
    [(_, height, width)] = adapter.grids((), {"pixel_position_ids": made["image_position_ids"]})
    assert made["num_soft_tokens_per_image"].tolist() == [height * width] == [4 * 14]
    ours = adapter.random_image((height, width), 1, torch.Generator())["image_position_ids"]
    assert torch.equal(made["image_position_ids"][:, : 9 * height * width], ours)
    assert bool((made["image_position_ids"][:, 9 * height * width :] == -1).all())


# --- what layers see --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["gemma3", "gemma4"])
def test_two_way_attention_matters(family: str) -> None:
    """Without it in any one kind of layer the references would be others."""
    model, x = build(family, "eager"), inputs(family, (2,))
    with prune(model, Plan(plan={0: 0.5})) as session, torch.no_grad():
        got = model(**x).logits
    keep = {0: ~dropped_by(session.reports[-1], x)[0][0]}
    kinds = tuple(Layers(model, x["input_ids"]).two_way)
    assert kinds == {"gemma3": ("full_attention", "sliding_attention"), "gemma4": ("sliding_attention",)}[family]
    assert torch.equal(gathered_layers(model, x, keep)[0], got)
    for left_out in kinds:
        others = [kind for kind in kinds if kind != left_out]
        assert not torch.allclose(gathered_layers(model, x, keep, two_way=others)[0], got, atol=1e-2)


@pytest.mark.parametrize(("family", "name"), [("gemma3", "token_type_ids"), ("gemma4", "mm_token_type_ids")])
def test_a_forward_that_does_not_mark_images_is_refused(family: str, name: str) -> None:
    """Un-pruned layers would be causal; with nothing to prune it is the model's own affair."""
    model, x = build(family), inputs(family)
    del x[name]
    with prune(model, RandomPre(ratio=0.5)), pytest.raises(UnsupportedError, match=f"has no {name}, by which"):
        model(**x)
    with prune(model, RandomPre(ratio=1.0)), torch.no_grad():
        model(**x)


@pytest.mark.parametrize(("family", "value"), [("gemma3", True), ("gemma4", "all")])
def test_decoders_without_order_are_refused(family: str, value: Any) -> None:
    model = build(family)
    config = model.get_decoder().config
    before, config.use_bidirectional_attention = config.use_bidirectional_attention, value
    try:
        with pytest.raises(UnsupportedError, match="every token sees later ones"), prune(model, RandomPre()):
            pass
    finally:
        config.use_bidirectional_attention = before


def test_kernels_without_masks_are_refused() -> None:
    model = fresh_model("gemma3")
    model.get_decoder().config._attn_implementation = "flash_attention_2"
    with pytest.raises(UnsupportedError, match="whose masks attn_implementation='flash_attention_2'"):
        prune(model, RandomPre()).__enter__()


# --- inputs of layers and reused keys ---------------------------------------------------------------------------------
PICKS = torch.tensor([9, 2, 13, 4, 0, 21])


def placed(view: View, keep: int) -> Tensor:
    return PICKS


def merged(view: View, keep: int) -> Selection:
    """Every kept token is the mean of itself and the next one."""
    return Selection(PICKS, (view.tokens[PICKS] + view.tokens[PICKS + 1]) / 2)


@pytest.mark.parametrize("answer", [placed, merged])
@pytest.mark.parametrize("order", ["raster", "release"])
def test_inputs_of_layers_are_those_of_the_token_in_the_slot(answer: Any, order: Order) -> None:
    """Against a loop over layers: merged tokens have their slot's inputs, moved ones keep their own."""
    model, x = build("gemma4-e2b", "eager"), inputs("gemma4-e2b")
    with prune(model, FixedAnswer(answer=answer, ratio=0.25, order=order)), torch.no_grad():
        got = model(**x).logits
    (embeds, positions), prompt = merged_inputs(model, x), Layers(model, x["input_ids"])
    places = (x["input_ids"][0] == IMAGE).nonzero()[:, 0]
    sources = places[PICKS if order == "release" else PICKS.sort().values]
    slots = places[PICKS.sort().values]
    keep = x["input_ids"][0] != IMAGE
    keep[slots] = True
    at = keep.nonzero()[:, 0]
    prompt.enter(embeds, positions, x["input_ids"])
    prompt.move(slots, sources)
    hidden = embeds.clone()
    hidden[0, slots] = embeds[0, sources]
    if answer is merged:
        hidden[0, slots] = (embeds[0, sources] + embeds[0, sources + 1]) / 2
    hidden = hidden[:, at]
    for layer in range(len(prompt.kinds)):
        hidden = prompt.call(layer, hidden, prompt.mask(layer, at, at), at)
    assert torch.equal(got, prompt.logits(prompt.decoder.norm(hidden)))


def test_pruning_after_keys_that_are_reused_is_refused() -> None:
    model = build("gemma4-e2b")
    with prune(model, RandomIntra(ratio=0.5, layer=4)):
        pass
    match = r"prunes at layers \[5\], but layers 6 to 7 reuse the keys of layers \[4, 5\].*layer 4 or before"
    with pytest.raises(UnsupportedError, match=match), prune(model, RandomIntra(ratio=0.5, layer=5)):
        pass


@family
def test_pairs_are_those_of_the_masks(family: str) -> None:
    """Layers that reuse keys run on the last token only."""
    model, x = build(family), inputs(family, (2,))
    with prune(model, Plan(plan={0: 0.7, 3: 0.3})) as session, torch.no_grad():
        model(**x)
    layers, dropped = Layers(model, x["input_ids"]), dropped_by(session.reports[0], x)
    for layer, pairs in enumerate(session.reports[0].rows[0].pairs):
        at = (~dropped[3 if layer >= 3 else 0][0]).nonzero()[:, 0]
        seen = layers.pairs(layer, at, at)
        last_only = family == "gemma4-e2b" and layer >= 6
        assert pairs == (float(seen[-1].sum()) if last_only else float(seen.sum()) - len(at) / 2)


@family
def test_the_output_head_runs_on_the_last_token_only(family: str) -> None:
    """Gemma 4 compares the number of states with that of ids, which pruning changes."""
    model, x, widths = build(family), inputs(family, (1, 2)), []
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda module, args: widths.append(args[0].shape[1])
    )
    with prune(model, FastV(ratio=0.5)):
        generate(model, x, 2)
    handle.remove()
    assert widths == [1, 1]


@family
def test_prompt_lookup_decoding(family: str) -> None:
    """Several tokens a step: layers that reuse keys run on the last of them only."""
    model, x = build(family), inputs(family)
    with prune(model, Plan(plan={0: 0.7, 3: 0.3})):
        want = generate(model, x, 14)[0]
        assert torch.equal(want, generate(model, x, 14, prompt_lookup_num_tokens=2)[0])


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("last", [1, 3])
def test_layers_that_run_on_the_last_tokens(kernel: str, last: int) -> None:
    """Rows of a padded batch that become equally long: no mask is left to be cut."""
    model, tiny, generator = build("gemma4-e2b", kernel), small("gemma4-e2b"), torch.Generator().manual_seed(0)
    prompts = [tiny.prompt(generator, [(2, 3)] * images, before=13 - 4 * images) for images in (1, 2)]
    x = tiny.batch(prompts)
    with prune(model, Plan(plan={0: 0.0})) as session, torch.no_grad():
        some, every = (model(**x, logits_to_keep=number).logits for number in (last, 0))
    assert not session.reports[0].kept[0].padded
    torch.testing.assert_close(some, every[:, -last:], atol=1e-5, rtol=1e-4)


# --- images and videos ------------------------------------------------------------------------------------------------
def test_frames_of_a_video_are_images_of_their_own() -> None:
    """Runs between time stamps, each with its own budget."""
    frames = [token for frame in range(2) for token in (20 + frame, *[VIDEO] * 6)]
    ids = torch.tensor([[5, *frames, 8, 9]])
    adapter, generator = find_adapter(build("gemma4")), torch.Generator().manual_seed(0)
    made = [adapter.random_image((2, 3), 1, generator) for _ in range(2)]
    x = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == VIDEO).int() * 2,
        "pixel_values_videos": torch.cat([one["pixel_values"] for one in made]),
        "video_position_ids": torch.cat([one["image_position_ids"] for one in made]),
        "num_frames_per_video": torch.tensor([2]),
    }
    with prune(build("gemma4"), RandomPre(ratio=0.5)) as session, torch.no_grad():
        build("gemma4")(**x)
    [row] = session.reports[-1].rows
    assert row.grids == (((1, 2, 3),), ((1, 2, 3),))
    assert [len(kept) for kept in row.stages[0].kept] == [3, 3]


@family
def test_models_like_the_published_ones_are_tried(family: str) -> None:
    assert find_adapter(build(family)).untried() is None


@pytest.mark.parametrize("family", ["gemma3", "gemma4"])
def test_marks_of_images_are_no_words(family: str) -> None:
    model = build(family)
    assert {model.config.boi_token_id, model.config.eoi_token_id} <= set(find_adapter(model).special_token_ids)


def test_dropping_all_of_an_image_is_a_shorter_prompt() -> None:
    model, x = build("gemma3"), inputs("gemma3", (2,))
    with prune(model, Plan(plan={0: 0.0})):
        tokens, logits = generate(model, x, STEPS)
    keep = x["input_ids"][0] != IMAGE
    want_tokens, want = physically_short(model, *merged_inputs(model, x), keep, STEPS, (), x["input_ids"])
    assert tokens[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)
