"""Methods that compare the tiles of an image: regions, refusals, and shares that cannot be spent."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.golden_cases import Methods
from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from tests.helpers.views import decide, make_view
from tests.methods.test_golden_hired import TwoLayers
from tests.methods.test_golden_vscan import Layers
from uniprune.engine import prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.methods.hired import HiRED
from uniprune.pruning.view import Tiles, View


def quadrants(hot: tuple[int, int]) -> View:
    """Return a 4 x 4 overview, and 2 x 2 tiles of it, each 4 x 4; early attention is in one quadrant `hot`."""
    early = torch.full((4, 4), 0.01)
    early[2 * hot[0] :, 2 * hot[1] :][:2, :2] = 1
    rows = torch.arange(8) // 4
    of = torch.cat((torch.zeros(16, dtype=torch.long), (1 + 2 * rows[:, None] + rows).flatten()))
    tower = TwoLayers(torch.cat((early.flatten(), torch.rand(64))), torch.linspace(1, 2, 80))
    return make_view(torch.ones(80, 2), grids=[(1, 4, 4), (1, 8, 8)], vision=tower, tiles=Tiles(of, 0))


def test_the_budget_goes_where_attention_is_only_if_regions_are_what_tiles_show(methods: Methods) -> None:
    """As released, left and right are the same: half of it goes to a tile that is not attended to."""
    for hot in ((0, 0), (0, 1), (1, 0), (1, 1)):
        view, counts = quadrants(hot), {}
        assert view.tiles is not None
        for regions in ("strips", "tiles"):
            answer = decide(methods("hired")(regions=regions, alpha=0.75), view, 16)
            counts[regions] = view.tiles.of[answer.indices].bincount(minlength=5).tolist()
        wanted = [12, 0, 0, 0, 0]
        wanted[1 + 2 * hot[0] + hot[1]] = 4
        assert counts["tiles"] == wanted
        assert counts["strips"] == ([12, 2, 2, 0, 0] if hot[0] == 0 else [12, 0, 0, 2, 2])


def test_the_largest_remainders_get_one_more(methods: Methods) -> None:
    """Of eight most attended tokens runs have 4, 3, 1 and 0; of 5 tokens that is 2.5, 1.875, 0.625 and 0."""
    view, early = quadrants((0, 0)), torch.zeros(80)
    early[[0, 1, 2, 3, 4, 5, 6, 8]] = 1
    view.vision = TwoLayers(early, torch.linspace(1, 2, 80))
    assert view.tiles is not None
    for counts, wanted in (("exact", [5, 2, 2, 1, 0]), ("release", [5, 2, 1, 0, 0])):
        answer = decide(methods("hired")(counts=counts), view, 10)
        assert view.tiles.of[answer.indices].bincount(minlength=5).tolist() == wanted


def test_every_budget_is_met(methods: Methods) -> None:
    view = quadrants((1, 1))
    for alpha in (0.0, 0.5, 0.99, 1.0):
        for keep in (1, 15, 17, 40, 79, 80):
            for regions in ("strips", "tiles"):
                fields = {} if alpha == 0.5 else {"alpha": alpha}
                assert len(decide(methods("hired")(regions=regions, **fields), view, keep).indices) == keep


def test_tiles_whose_places_are_unknown_have_no_regions() -> None:
    x = inputs("internvl", (1,), tiles=3)
    with (
        prune(build("internvl"), HiRED(ratio=0.5, regions="tiles")),
        pytest.raises(UnsupportedError, match="the image has 2 tiles in rows that the model is not told"),
    ):
        generate(build("internvl"), x, 1)


@pytest.mark.parametrize("scope", ["prompt", "grid"])
def test_images_are_not_joined_or_parted(scope: str) -> None:
    with pytest.raises(UserError, match=f"HiRED compares the tiles of one image, which scope={scope} joins or parts"):
        HiRED(scope=scope)  # type: ignore[arg-type]


def test_regions_and_windows_are_those_of_the_tokens_that_are_left(methods: Methods) -> None:
    """Every second row of the overview is gone, and then one row of windows."""
    whole = quadrants((1, 0))
    assert whole.tiles is not None
    left = torch.cat((torch.arange(4), torch.arange(8, 80)))
    early, late = whole.vision.importance(0.0)[left], whole.vision.importance(None)[left]
    given = {"grids": whole.grids, "cells": left, "tiles": Tiles(whole.tiles.of[left], 0)}
    view = make_view(torch.ones(76, 2), vision=TwoLayers(early, late), **given)
    counts = Tiles(whole.tiles.of[left], 0).of[decide(methods("hired")(alpha=0.75), view, 16).indices].bincount()
    assert counts.tolist() == [12, 0, 0, 3, 1]  # of the three most attended tokens two are in the third row
    with pytest.raises(UnsupportedError, match="or is not whole; use regions=strips"):
        methods("hired")(regions="tiles").select(view, 16)
    below = torch.arange(72, 144)
    attention = torch.rand(72, generator=torch.Generator().manual_seed(0))
    tower = Layers(True, attention, torch.zeros(72))
    answer = methods("vscan")().select(make_view(torch.eye(72), grids=[(1, 12, 12)], cells=below, vision=tower), 8)
    windows = torch.arange(72) % 12 // 6
    best = {int(attention.where(windows == one, 0).argmax()) for one in (0, 1)}
    assert best < set(answer.indices.tolist())
