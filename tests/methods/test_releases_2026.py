"""Findings about releases of newer methods (docs/releases.md): groups, windows, cuts and images.

A release's rule is written out here, and compared with the method.
"""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tests.helpers.golden_cases import Methods
from tests.helpers.views import Tower, decide, make_view
from tests.methods.test_golden_groups import injected
from tests.methods.test_golden_resize import sizes
from tests.methods.test_golden_vit import view_of
from uniprune.pruning.view import BlockState


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_prunesid_chooses_otherwise_with_every_seed(methods: Methods) -> None:
    """The release's components are torch's approximation, from random numbers of the global generator."""
    features, attention, found = drawn(144, 48), drawn(144, seed=1).softmax(0), []
    view = view_of(features, importance=attention)
    for seed in (0, 1, 2, 3, 4, 5, 0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            loadings = torch.pca_lowrank(features.sigmoid().T, q=8)[2].abs()
        groups = torch.nn.functional.one_hot(loadings.argmax(1), 8)
        found.append(set(injected(methods("prunesid"), groups).select(view, 32).indices.tolist()))
    assert found[0] == found.pop()
    shares = [len(one & other) / 32 for one, other in combinations(found, 2)]
    assert (round(min(shares), 2), round(max(shares), 2)) == (0.44, 0.62), shares
    ours = [methods("prunesid")(seed=seed).select(view, 32).indices.tolist() for seed in (0, 1)]
    assert ours[0] == ours[1]


def test_vscan_loses_what_its_windows_cannot_share(methods: Methods) -> None:
    """Sixteen windows: of 50 tokens by windows each has 3, so 98 stay of 100; of fewer than 32 none is by windows."""
    features, counts = drawn(576, 8), {}
    tower = Tower(importance=drawn(576, seed=1).softmax(0))
    tower.has_cls = True
    view = make_view(features, grids=[(1, 24, 24)], vision=tower)
    for asked in (30, 100, 575):
        counts[asked] = len(methods("vscan")(ratio=0.5, counts="release").select(view, asked).indices)
        assert len(decide(methods("vscan")(ratio=0.5), view, asked).indices) == asked
    assert counts == {30: 15, 100: 98, 575: 560}


def test_a_ratio_of_nothing_leaves_v2drop_a_token(methods: Methods) -> None:
    """The release takes the larger of one and the floor of the share."""
    assert methods("v2drop")().left == (0.5, 0.25, 0.0)
    stages = methods("v2drop")(ratio=0.5, budget="paper").schedule(32)
    assert [max(1, int(576 * share)) for share in (0.5, 0.25, 0.0)] == [288, 144, 1]
    assert [max(1, round(576 * stage.ratio)) for stage in stages] == [288, 144, 1]


def test_released_shares_are_far_from_their_names(methods: Methods) -> None:
    """Sides are rounded to tokens, and only after the shrink is the number of tokens limited."""
    shares = {}
    for height, width, k in ((336, 336, 5), (336, 336, 10), (2448, 3264, 2), (4000, 6000, 2)):
        small = methods("resize")(form="vtc-bench", ratio=1 / k**2).shrunk(Image.new("L", (width, height)))
        tokens, whole = sizes((small.height, small.width))[2], sizes((height, width))[2]
        shares[height, k] = round(tokens / whole * k**2, 2)
    assert shares == {(336, 5): 0.69, (336, 10): 2.78, (2448, 2): 3.39, (4000, 2): 4.06}


def test_features_have_no_effect_on_dominant_tokens_of_visiontrim(methods: Methods) -> None:
    """Affinity to neighbours and adaptive weights are computed, then overwritten by two kinds of attention."""
    received, cls = drawn(144, seed=1).softmax(0), drawn(144, seed=2).softmax(0)
    score = 0.5 * cls / cls.norm() + 0.5 * received / received.norm()
    for seed in range(3):
        tower = Tower(features=drawn(144, 16, seed=seed), from_others=received, importance=cls)
        view = make_view(drawn(144, 16, seed=seed + 9), vision=tower, prompt=drawn(5, 16, seed=seed))
        kept = methods("visiontrim")().select(view, 32).indices[:24]
        assert kept.tolist() == score.topk(24).indices.sort().values.tolist()


def test_trim_keeps_what_is_least_like_the_question(methods: Methods) -> None:
    """By products: of two patches in one direction away from the question the longer one is first."""
    projected = torch.tensor([[3.0, 0], [0, 1], [-1, 0], [-2, 1], [1, 1], [0.5, 0]])
    texts = SimpleNamespace(summary=torch.tensor([1.0, 0]), project=lambda x, normed=False: projected)
    tower = Tower(features=drawn(6, 4))
    tower.text_tower = lambda: texts
    kept = [methods("trim")().select(make_view(drawn(6, 4), vision=tower), keep).indices[:-1] for keep in (2, 3)]
    assert [one.tolist() for one in kept] == [[3], [2, 3]]


def test_tome_merges_fewer_than_r_per_block(methods: Methods) -> None:
    """In its decreasing schedule every block's number is rounded down."""
    merges = methods("tome")(r=8, inflection=-1).plan(10**6, 1, 24)
    assert (sum(merges), 8 * 24) == (181, 192)
    assert list(merges) == [int(16 * (23 - block) / 23) for block in range(24)]
    assert sum(methods("tome")(r=8).plan(10**6, 1, 24)) == 192


def test_tome_reorders_tokens(methods: Methods) -> None:
    """Without a class token, even tokens that do not merge follow by falling similarity, then the odd ones."""
    keys = drawn(2, 24, 8)
    units = torch.nn.functional.normalize(keys.mean(0), dim=-1)
    ranked = 2 * (units[::2] @ units[1::2].T).amax(1).argsort(descending=True)
    released = [*ranked[5:].tolist(), *range(1, 24, 2)]
    view = make_view(drawn(24, 8), block=BlockState(keys, torch.ones(24), 0))
    kept = methods("tome")().select(view, 24 - 5).indices.tolist()
    assert kept == sorted(released)
    assert released[:7] != sorted(released[:7])


def kept_by_pixelprune(methods: Methods, pixels: Tensor, **fields: Any) -> int:
    """Return how many of 48 tokens, 6 rows of 8, stay."""
    view = make_view(torch.zeros(48, 1), grids=[(1, 6, 8)], pixels=pixels)
    return len(methods("pixelprune")(**fields).select(view, 1))


def test_pixelprune_without_anchors_may_keep_more(methods: Methods) -> None:
    """Predictions from the original neighbours drop a slow drift, but keep more of a noisy plane."""
    drift, noise = torch.arange(48.0)[:, None] / 480, 0.5 + 0.01 * drawn(48, 1, seed=3)
    counts = {
        name: [kept_by_pixelprune(methods, pixels, tau=0.01, anchored=anchored) for anchored in (True, False)]
        for name, pixels in (("drift", drift), ("noise", noise))
    }
    assert counts["drift"][0] > counts["drift"][1]
    assert counts["noise"][0] < counts["noise"][1]


def test_tau_has_no_effect_on_exact_pixelprune(methods: Methods) -> None:
    pixels = 0.5 + 0.01 * drawn(48, 1).round()
    counts = {
        (metric, tau): kept_by_pixelprune(methods, pixels, metric=metric, tau=tau)
        for metric in ("exact", "max")
        for tau in (0.0, 0.02)
    }
    assert counts["exact", 0.0] == counts["exact", 0.02] == counts["max", 0.0] > counts["max", 0.02]
