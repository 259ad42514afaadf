"""HiRED against the released code, hasanar1f/HiRED @ 502d6dd79a03, through the method's own `select`."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, golden, picked, same
from tests.helpers.views import Tower, decide, make_view, noise
from uniprune.pruning.base import Selection
from uniprune.pruning.view import Tiles, View


class TwoLayers(Tower):
    """A tower whose attention differs from layer to layer."""

    def __init__(self, early: Tensor, late: Tensor) -> None:
        super().__init__()
        self.importance = {0.0: early, None: late}.__getitem__


def joined(tiles: Tensor, rows: int, columns: int) -> Tensor:
    """Return the values [T, n] of an overview and of its parts, which are put together, row by row."""
    side = round(tiles.shape[1] ** 0.5)
    parts = tiles[1:].view(rows, columns, side, side).transpose(1, 2)
    return torch.cat((tiles[0], parts.flatten()))


def tiled(case: Case) -> tuple[View, Tensor, Tensor]:
    """Return the view as LLaVA-NeXT has it, and the tile and place in it of every token."""
    (rows, columns), (count, size) = case.grid.tolist(), case.final_attn[:, 0, 1:].shape
    number = torch.arange(count)[:, None].expand(count, size)
    of, place = joined(number, rows, columns), joined(torch.arange(size).expand(count, size), rows, columns)
    early, late = (values.mean(1)[:, 1:].clone() for values in (case.init_attn, case.final_attn))
    early[1:] = noise(*early[1:].shape)  # only the overview is read
    side = round(size**0.5)
    tower = TwoLayers(joined(early, rows, columns), joined(late, rows, columns))
    grids = [(1, side, side), (1, rows * side, columns * side)]
    tokens = torch.arange(len(of))[:, None].to(late)
    return make_view(tokens, grids=grids, vision=tower, tiles=Tiles(of, 0)), of, place


def apart(case: Case) -> View:
    """Return the same tiles as InternVL has them: one after the other, the overview last."""
    early, late = (values.mean(1)[:, 1:].roll(-1, 0) for values in (case.init_attn, case.final_attn))
    (count, size), side = late.shape, round(late.shape[1] ** 0.5)
    tiles = Tiles(torch.arange(count).repeat_interleave(size), count - 1)
    tower = TwoLayers(early.flatten(), late.flatten())
    tokens = torch.arange(late.numel())[:, None].to(late)
    return make_view(tokens, grids=[(1, side, side)] * count, vision=tower, tiles=tiles)


@golden("vit_hired")
def test_hired(case: Case, methods: Methods) -> None:
    final = case.final_attn.mean(1)[:, 1:]
    asked = int(final.numel() * case.rate)
    if "init_attn" not in case.arrays:
        view = make_view(final[0, :, None], vision=TwoLayers(noise(len(final[0])), final[0]))
        picked(decide(methods("hired")(), view, asked), case.keep)
        return
    fields = {} if case.alpha == 0.5 else {"alpha": case.alpha}
    view, of, place = tiled(case)
    released, exact = (decide(methods("hired")(counts=one, **fields), view, asked) for one in ("release", "exact"))
    found = sorted(zip(of[released.indices].tolist(), place[released.indices].tolist(), strict=True))
    assert found == sorted(zip(case.tile.tolist(), case.keep.tolist(), strict=True))
    same(of[released.indices].bincount(minlength=len(final)), case.tile_budget)
    assert len(exact.indices) == asked
    assert set(released.indices.tolist()) <= set(exact.indices.tolist())
    later = decide(methods("hired")(counts="release", **fields), apart(case), asked)
    check_apart(later, case, final.shape[1])


def check_apart(answer: Selection, case: Case, size: int) -> None:
    """Require the same tokens of tiles of which the overview is the last."""
    number = answer.indices // size
    tile = torch.where(number == len(case.tile_budget) - 1, 0, number + 1)
    found = sorted(zip(tile.tolist(), (answer.indices % size).tolist(), strict=True))
    assert found == sorted(zip(case.tile.tolist(), case.keep.tolist(), strict=True))
