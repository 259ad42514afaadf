"""VScan's half in the tower against the released code, Tencent/SelfEvolvingAgent @ a82450e1b5e1 (folder VScan)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, golden, same
from tests.helpers.views import Tower, decide, make_view
from uniprune.pruning.base import Selection
from uniprune.pruning.view import View


class Layers(Tower):
    """A tower whose attention differs from layer to layer."""

    def __init__(self, has_cls: bool, early: Tensor, late: Tensor) -> None:
        super().__init__()
        self.has_cls, layers = has_cls, {1 / 4: early, None: late}
        self.importance = layers.__getitem__


def scanned(tokens: Tensor, grid: Tensor, tower: Layers) -> View:
    """Return the view."""
    height, width = grid.tolist()
    return make_view(tokens, grids=[(1, height, width)], vision=tower)


def check(answer: Selection, keep: Tensor, merged: Tensor) -> None:
    """Require the kept tokens, and what they are."""
    same(answer.indices, keep)
    assert answer.tokens is not None
    torch.testing.assert_close(answer.tokens, merged, rtol=1e-5, atol=1e-5)


@golden("vit_vscan")
def test_vscan(case: Case, methods: Methods) -> None:
    """As released; where that meets the budget, the default is the same."""
    for tokens, early, late, keep, merged in zip(
        case.features, case.shallow_cls_attn, case.deep_cls_attn, case.keep, case.merged, strict=True
    ):
        view = scanned(tokens, case.grid, Layers(True, early.mean(0), late.mean(0)))
        check(decide(methods("vscan")(counts="release"), view, case.keep_num), keep, merged)
        exact = decide(methods("vscan")(), view, case.keep_num)
        assert len(exact.indices) == case.keep_num
        if len(keep) == case.keep_num:
            check(exact, keep, merged)


@golden("vit_vscan_qwen")
def test_vscan_qwen(case: Case, methods: Methods) -> None:
    count = int(len(case.features) * case.ratio)
    assert len(case.keep) == count
    for has_cls, reading in ((False, None), (True, "qwen")):
        tower = Layers(has_cls, case.local_received, case.global_received)
        view = scanned(case.features, case.grid, tower)
        check(decide(methods("vscan")(reading=reading), view, count), case.keep, case.merged)
        assert torch.isin(case.local_keep, case.keep).all()
