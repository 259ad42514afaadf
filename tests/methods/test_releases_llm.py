"""Findings about releases of methods inside the language model, and for videos (docs/releases.md).

A release's rule is written out here, and compared with the method or with the paper's words.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.golden_cases import Methods, rotary
from tests.helpers.views import SYSTEM, Rows, decide, llm_view, make_view
from uniprune.pruning.budget import keep_count, tokens_per_layer


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(heads: int, text: int, visual: int, seed: int = 0) -> Tensor:
    """Return rows of attention [H, T, N]."""
    return (2 * drawn(heads, text, visual, seed=seed)).softmax(-1) / 2


def released_by_dart(hidden: Tensor, pivots: list[int], visual: range, each: int) -> list[int]:
    """Return the released choice: each pivot in turn adds the `each` tokens left that are least like it."""
    kept = [pivot for pivot in pivots if pivot in visual]
    for pivot in pivots:
        cosine = F.cosine_similarity(hidden[pivot], hidden, dim=-1).tolist()
        kept += sorted((place for place in visual if place not in kept), key=cosine.__getitem__)[:each]
    return sorted(place - visual.start for place in kept)


def test_fastv_ranks_by_one_row_and_not_by_the_mean(methods: Methods) -> None:
    """Of all rows or of those after the image, the mean makes another choice."""
    rows = attention(4, 12, 60)
    view = llm_view(drawn(60, 8), Rows(rows, last=rows[:, -1:]))
    kept = set(methods("fastv")().select(view, 10).tolist())
    assert kept == set(rows[:, -1].mean(0).argsort(descending=True)[:10].tolist())
    assert len(kept & set(rows.mean((0, 1)).argsort(descending=True)[:10].tolist())) < 8


def test_dart_keeps_more_or_fewer_than_asked(methods: Methods) -> None:
    """Four visual pivots and the floor of an eighth of the budget for each of eight; ten and a fifteenth in a port."""
    places, visual = list(range(35, 39)) + list(range(611, 615)), range(35, 611)
    hidden = drawn(640, 16).double()
    for asked, count in ((192, 196), (128, 132), (64, 68)):
        assert len(released_by_dart(hidden, places, visual, asked // 8)) == count
        keys = {"visual": drawn(576, 8), "text": drawn(20, 8)}
        view = llm_view(drawn(576, 16), Rows(attention(2, 20, 576), keys=keys), text=drawn(23, 16), norm=lambda x: x)
        assert len(decide(methods("dart")(), view, asked).indices) == asked
    assert [10 + 15 * (int(576 * ratio) // 15) for ratio in (0.333, 0.222, 0.111)] == [190, 130, 70]


def test_pivots_of_dart_act_in_the_order_of_a_python_set(methods: Methods) -> None:
    """Indices of a set come by their remainders: text before the image changes the order, and with it the choice."""
    pivots, hidden, found = (446, 576, 584, 45, 591, 498, 595, 540), drawn(600, 4).double(), []
    for system in (35, 60, 139):
        order = [place - system for place in {pivot + system for pivot in pivots}]
        found.append((tuple(order), tuple(released_by_dart(hidden, order, range(576), 24))))
    assert len({order for order, _ in found}) > 1
    assert len({kept for _, kept in found}) > 1
    assert methods("dart")().visual_pivots + methods("dart")().text_pivots == len(pivots)


def test_pyramiddrop_cannot_keep_less_than_a_quarter(methods: Methods) -> None:
    """Before layer 8 nothing is dropped, so the paper's 128 and 64 of 576 tokens on average need other layers."""
    averages = []
    for level in (0.125, 1 / 576):
        stages = methods("pyramiddrop")(ratio=level, budget="paper").schedule(32)
        assert [stage.layer for stage in stages] == [8, 16, 24]
        averages.append(sum(tokens_per_layer(576, stages, 32)) / 32)
    assert averages == [270, 163.5]
    assert min(averages) > 576 * 8 / 32 == 144


def test_pyramiddrop_of_the_port_multiplies_its_ratio(methods: Methods) -> None:
    """One ratio of what is left, at three layers: none of 576 tokens is left at 11.1 %."""
    left = {}
    for ratio in (0.333, 0.111):
        counts = [576]
        for _ in range(3):
            counts.append(int(counts[-1] * ratio))
        left[ratio] = counts[1:]
        stages = methods("pyramiddrop")(ratio=ratio).schedule(28)
        assert keep_count(576, min(stage.ratio for stage in stages)) > counts[-1]
    assert left == {0.333: [191, 63, 20], 0.111: [63, 6, 0]}


def test_settings_of_fitprune_are_shares_of_work(methods: Methods) -> None:
    entering = {}
    for level in (0.4, 0.3, 0.2, 0.1):
        stages = methods("fitprune")(ratio=level, budget="paper").schedule(32)
        entering[level] = round(sum(tokens_per_layer(576, stages, 32)) / 32)
        if level == 0.4:
            assert keep_count(576, stages[-1].ratio) == 127
    assert entering == {0.4: 245, 0.3: 188, 0.2: 131, 0.1: 73}


def test_tokens_of_sparsevlm_are_counted_after_the_layers_that_prune(methods: Methods) -> None:
    """192 tokens leave the layers on average, 206.5 enter them: a layer that prunes has them all."""
    recycled = [kept + int(int(0.3 * (before - kept) + 1) / 10) + 1 for before, kept in ((576, 300),)]
    assert recycled == [309]
    stages = methods("sparsevlm")(ratio=1 / 3, budget="paper").schedule(32)
    entering = tokens_per_layer(576, stages, 32)
    assert [stage.layer for stage in stages] == [3, 7, 16]
    assert sum(entering) / 32 == 206.5
    assert sum([*entering[1:], entering[-1]]) / 32 == 192.03125


def test_rank_decides_how_many_tokens_of_sparsevlm_stay(methods: Methods) -> None:
    """Raters of one rank keep 13 of 400 tokens, of four ranks 54. The paper's rule removes a share of tokens - rank."""
    counts = []
    for ranks in (1, 4):
        rows = attention(2, 4, 400) if ranks == 4 else attention(2, 1, 400).expand(-1, 4, -1)
        embedded = SimpleNamespace(tokens=drawn(400, 4), text=torch.ones(SYSTEM + 4, 4))
        view = llm_view(drawn(400, 4), Rows(rows), embedded=embedded)
        kept = len(methods("sparsevlm-v1")(ratio=1 / 3).select(view, 1).indices)
        dropped = 400 - int(13.5 * ranks)
        assert kept == 400 - dropped + (int(0.3 * dropped) + 1) // 10 + 1
        counts.append(400 - dropped)
    assert counts == [13, 54]
    share = (400 - 13) / (400 - 1)  # removes as many at one rank
    assert [400 - round(share * (400 - rank)) for rank in (1, 4)] == [13, 16]


def test_the_prior_of_sparsevlm_turns_scores_around(methods: Methods) -> None:
    """The least attended tokens stay if rotary positions alone contribute less than nothing."""
    cos, sin = rotary(1800, 128, 1e4, torch.float64)
    rotated = torch.stack((cos[0] - sin[0], cos[0] + sin[0]), -1)  # a rotated vector of ones, half and half
    prior = (rotated[-1, :64, 0] * rotated[:, :64, 0] + rotated[-1, :64, 1] * rotated[:, :64, 1]).sum(-1) / 128**0.5
    first = 1799 - int((prior < 0).nonzero().max())
    assert 1650 < first < 1750
    rows = attention(4, 5, 60)
    embedded = SimpleNamespace(tokens=drawn(60, 4), text=torch.ones(SYSTEM + 5, 4))
    kept = []
    for sign in (1, -1):
        view = llm_view(drawn(60, 4), Rows(rows, prior=sign * torch.ones(5, 60)), embedded=embedded)
        kept.append(set(methods("sparsevlm-v2")(heads=1.0).select(view, 10).tolist()))
    mean = rows.mean((0, 1))
    assert kept == [set(mean.topk(10).indices.tolist()), set((-mean).topk(10).indices.tolist())]


def test_thresholds_of_mustdrop_are_those_of_one_image_size(methods: Methods) -> None:
    """A share of all attention: of equally attended tokens all pass up to 1000, and none beyond; here all do."""
    stays = {}
    for count in (576, 999, 1001, 2880):
        rows = torch.full((1, 4, count), 0.0008)
        sums = rows[0].sum(0)
        stays[count] = not bool(((sums < 0.001 * sums.sum()) & (rows[0].amax(0) < 0.001)).any())
        scratch = {"key cells": torch.zeros(0, dtype=torch.long)}
        view = llm_view(torch.zeros(count, 1), Rows(rows), initial=count, scratch=scratch)
        assert len(methods("mustdrop")(ratio=1 / 3).select(view, 1)) == count
    assert stays == {576: True, 999: True, 1001: False, 2880: False}


def test_the_rows_of_priortrs_copies_choose_differently(methods: Methods) -> None:
    rows = attention(4, 9, 80)
    view = llm_view(drawn(80, 4), Rows(rows, last=rows[:, -1:]))
    kept = {
        name: set(methods("priortr")(rows=name).select(view, 12).tolist()) for name in ("llava", "internvl", "qwen")
    }
    assert len({frozenset(one) for one in kept.values()}) == 3
    assert max(len(kept["llava"] & kept[other]) for other in ("internvl", "qwen")) < 12


def test_priortr_compares_the_mean_of_the_question(methods: Methods) -> None:
    """The formula has the last row; by default the mean of all rows is taken, that of the null token among them."""
    rows = attention(4, 9, 80)
    view = llm_view(drawn(80, 4), Rows(rows))
    p, q = ((one := some.mean((0, 1))) / one.sum() for some in (rows, rows[:, :1]))
    assert set(methods("priortr")().select(view, 12).tolist()) == set((p * (p / q).log()).topk(12).indices.tolist())
    formula = set(methods("priortr")(query="last").select(view, 12).tolist())
    assert len(formula & set(methods("priortr")().select(view, 12).tolist())) < 10


def test_evs_in_bfloat16_keeps_early_tokens(methods: Methods) -> None:
    """Most cells are as far from the frame before as many others, and of equal ones the first stays."""
    frame = drawn(1, 64, 256)
    clip = frame + 0.05 * drawn(16, 64, 256, seed=1)
    half = clip.bfloat16()
    change = 1 - F.cosine_similarity(half[1:], half[:-1], dim=-1)
    assert len(change.unique()) < 8
    flat = torch.cat((torch.full((64,), 255.0), change.float().flatten()))
    served = flat.argsort(descending=True, stable=True)[:256]
    exact = methods("evs")(ratio=0.25, counts="exact").select(make_view(clip.flatten(0, 1), grids=[(16, 8, 8)]), 256)
    middles = [kept[kept >= 64].float().mean() / 64 for kept in (served, exact)]
    assert middles[0] < middles[1] - 1
    assert float(torch.isin(served, exact).float().mean()) < 0.75


def test_slow_drift_is_nothing_new_to_evs(methods: Methods) -> None:
    """A cell that turns right around over the clip, a little per frame, loses to one that flickers a little more."""
    tokens = torch.ones(20, 3, 2)
    angles = torch.arange(20) * math.pi / 19
    tokens[:, 1] = torch.stack((angles.cos(), angles.sin()), -1)
    tokens[1::2, 2] = torch.tensor([1.0, 0.6])
    kept = methods("evs")(ratio=0.35, counts="exact").select(make_view(tokens.flatten(0, 1), grids=[(20, 1, 3)]), 21)
    assert sorted(kept.tolist()) == [0, 1, 2, *range(5, 59, 3)]
    assert F.cosine_similarity(tokens[0, 1], tokens[-1, 1], dim=0) < -0.99


def test_vidcom2_does_not_hand_on_what_a_frame_cannot_take(methods: Methods) -> None:
    tokens = torch.ones(5, 15, 12) + 0.1 * drawn(5, 15, 12)
    tokens[2] = drawn(15, 12, seed=3)
    view = make_view(tokens.flatten(0, 1), grids=[(5, 3, 5)])
    released = methods("vidcom2")(ratio=0.8, counts="release").select(view, 60)
    frames = (released // 15).bincount(minlength=5)
    assert frames[2] == 15
    assert len(released) == 55
    assert len(decide(methods("vidcom2")(ratio=0.8), view, 60).indices) == 60
