"""Newer ViT-only methods against the released code of their papers, through the methods' own `select`.

Producers (repository @ commit): SCOPE kinredon/SCOPE @ 6bf73069e0d6; HiPrune
Danielement321/HiPrune @ 6e83a1240874; MMTok Ironieser/MMTok @ d1522cda0ac4;
HoloV obananas/HoloV @ 1d2e65e961e6. Several tiles of a case are several views.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, ascending, golden, picked, same
from tests.helpers.views import Tower, decide, make_view
from tests.methods.test_golden_vit import view_of


@golden("vit_scope")
def test_scope(case: Case, methods: Methods) -> None:
    method = methods("scope")(alpha=case.alpha, combine={"multi": "product", "add": "sum"}[case.combined])
    for features, attention, order, keep in zip(case.features, case.cls_attn, case.order, case.keep, strict=True):
        view = view_of(features, importance=attention.mean(0), cls=attention)
        view.tokens = view.tokens.roll(1, 1) ** 2  # what the projector makes of features is not compared
        same(method.select(view, case.keep_num), order)
        picked(decide(method, view, case.keep_num), keep)
        same(ascending(order), keep)


@golden("vit_hiprune")
def test_hiprune(case: Case, methods: Methods) -> None:
    height, width = case.grid.tolist()
    method = methods("hiprune")(alpha=case.alpha)
    assert method.vision_layers == (3 / 8, None)
    for middle, deep, keep in zip(case.object_attn, case.deep_attn, case.keep, strict=True):
        received = {3 / 8: middle, None: deep}
        view = make_view(torch.arange(height * width)[:, None].to(deep), grids=[(1, height, width)])
        view.vision = Layers({layer: rows.mean((0, 1))[1:] for layer, rows in received.items()})
        same(method.select(view, case.keep_total // len(case.keep)), keep)


class Layers:
    """Received attention by layer."""

    def __init__(self, received: dict[float | None, Tensor]) -> None:
        self.received = received.__getitem__


@golden(
    "vit_mmtok",
    excluded={"case9": "the release excludes patches that pad LLaVA-1.5's square images, which views do not know"},
)
def test_mmtok(case: Case, methods: Methods) -> None:
    """With the tower's own features, and with the same ones of two patches whose mean they are."""
    if len(case.excluded):
        pytest.skip("patches of padding are excluded, which views do not know")
    fields = {"alpha": case.alpha, "text_temperature": case.tv_temp, "visual_temperature": case.vv_temp}
    standard = {"alpha": 0.5, "text_temperature": 0.02, "visual_temperature": 0.2}
    method = methods("mmtok")(**{name: value for name, value in fields.items() if value != standard[name]})
    apart = torch.linspace(-1, 1, case.tower.shape[1]).to(case.tower)
    for patches, features in ((1, case.tower), (2, torch.cat((case.tower + apart, case.tower - apart), 1))):
        tower = Tower(features=features, hidden=case.tower)
        tower.patches = patches
        view = make_view(case.projected, vision=tower, prompt=case.text, text=case.text.flip(1))
        picked(decide(method, view, case.keep_num), case.keep)


@golden("vit_holov")
def test_holov(case: Case, methods: Methods) -> None:
    """As released, with tokens of zeros; by default the same set wherever there are none."""
    count, crops = len(case.features), case.num_patches
    fields = {} if crops == max(1, int(1024 / 576 * count / case.keep_num)) else {"crops": crops}
    view = view_of(case.features, importance=case.cls_attn.mean(0))
    released = methods("holov")(overflow="zeros", **fields).select(view, case.keep_num)
    kept = case.keep_num - case.padded
    same(released.indices[:kept], case.order[:kept])
    assert case.order[kept:].tolist() == [-1] * case.padded
    if case.padded:
        same(released.tokens[:kept], view.tokens[case.order[:kept]])
        assert not released.tokens[kept:].any()
    answer = decide(methods("holov")(**fields), view, case.keep_num)
    assert answer.tokens is None
    assert torch.isin(case.keep, answer.indices).all()
    assert len(answer.indices) == case.keep_num
