"""Views in the vision tower have the pixels of their tokens; numbers that pixels decide; videos step by step."""

from __future__ import annotations

from math import prod

import pytest
import torch

from tests.engine.test_tower_stage import METHOD, in_sequence, seen
from tests.helpers.oracles import dropped_by, merged_inputs, physically_short
from tests.helpers.pruners import generate
from tests.helpers.tiny import VIDEO, build, inputs, video_inputs
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.methods.pixelprune import PixelPrune
from uniprune.modeling.families import find_adapter


@pytest.mark.parametrize("family", ["llava", "internvl", "gemma3", "qwen2_5_vl", "qwen3_vl"])
def test_pixels_are_those_of_the_token(family: str) -> None:
    """A token whose pixels have one value, from 0 to 1, is shown with it."""
    adapter, x = find_adapter(build(family)), inputs(family, (2,))
    grids, given = adapter.grids((), {**x, "grid_thw": x.get("image_grid_thw")}), x["pixel_values"]
    mean, std = (torch.tensor(values) for values in adapter.normalisation)
    values = torch.rand(sum(map(prod, grids)))
    if adapter.packed:
        colours = (values.repeat_interleave(4)[:, None] - mean) / std
        pixels = colours[:, :, None].expand(-1, -1, given.shape[1] // 3).flatten(1)
    else:
        sides = [given.shape[2] // grids[0][1], given.shape[3] // grids[0][2]]
        tokens = values.view(len(given), 1, *grids[0][1:]).repeat_interleave(sides[0], 2).repeat_interleave(sides[1], 3)
        pixels = (tokens - mean[:, None, None]) / std[:, None, None]
    found = torch.cat(adapter.token_pixels(pixels, grids))
    assert found.numel() == given.numel()
    torch.testing.assert_close(found, values[:, None].expand_as(found))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_method_may_choose_its_own_number(family: str) -> None:
    model, x = build(family), inputs(family, (2,))
    x["pixel_values"] = x["pixel_values"].clone()
    x["pixel_values"][4:12] = x["pixel_values"][:4].repeat(2, 1)  # tokens 1 and 2 of the first image are token 0
    _, kept, features = seen(model, x, PixelPrune(ratio=0.5))
    assert [cells.tolist() for cells in kept] == [[0, *range(3, 24)], list(range(16))]
    for cells, found, states in zip(kept, features, in_sequence(model, x, kept, 0), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(found[cells], find_adapter(model).vision.merger(states), atol=1e-5, rtol=1e-4)
    with pytest.raises(UnsupportedError, match="encodes tiles side by side"):
        prune(build("llava"), PixelPrune(ratio=0.5)).__enter__()


def test_steps_of_a_video_are_chosen_one_by_one() -> None:
    model, x = build("qwen2_5_vl"), video_inputs()
    with prune(model, METHOD) as session:
        tokens, logits = generate(model, x, 3)
        with torch.no_grad():
            embeds, positions = merged_inputs(model, x)
    assert [len(cells) for cells in session.reports[0].rows[0].stages[0].kept] == [10, 10]
    keep = ~dropped_by(session.reports[0], x, VIDEO)[0][0]
    want_tokens, want = physically_short(model, embeds, positions, keep, 3, (), x["input_ids"])
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-4)
