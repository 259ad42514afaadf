"""Newer ViT-only methods: refusals, ties, and what releases do and papers do not mention."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.golden_cases import Methods
from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from tests.helpers.views import Tower, make_view
from tests.methods.test_golden_vit import view_of
from tests.methods.test_golden_vit_2026 import Layers
from uniprune.engine import prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.methods.hiprune import HiPrune
from uniprune.methods.holov import HoloV
from uniprune.methods.scope import SCOPE
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.families import find_adapter


def test_a_sum_of_heads_needs_a_class_token() -> None:
    for family in ("qwen2_5_vl", "qwen3_vl"):
        with (
            prune(build(family), SCOPE(ratio=0.5, combine="sum")),
            pytest.raises(UnsupportedError, match="no CLS token, so CLS attention does not exist"),
        ):
            generate(build(family), inputs(family), 1)


def test_scope_takes_duplicates_and_empty_tokens_last_and_covers_nothing_below_zero() -> None:
    features = torch.tensor([[1.0, 0], [1, 0], [0, 0], [0, 1], [-1, 0]])
    attention = torch.tensor([1.0, 2, 9, 1, 1])
    assert SCOPE().select(view_of(features, importance=attention), 5).tolist() == [1, 3, 4, 0, 2]
    assert SCOPE(alpha=0).select(view_of(features, importance=attention), 5).tolist() == [0, 3, 4, 1, 2]


def test_anchors_come_first_then_their_neighbours(methods: Methods) -> None:
    """Two frames of 3 x 4 tokens and one of 2 x 2; the anchors are a corner, and an end of a row."""
    view = make_view(torch.zeros(28, 1), grids=[(2, 3, 4), (1, 2, 2)])
    middle, deep = torch.zeros(28), torch.arange(28.0)
    middle[[12, 7]] = torch.tensor([3.0, 2.0])
    view.vision = Layers({3 / 8: middle, None: deep})  # type: ignore[assignment]  # all that is read
    near = {12, 13, 16, 7, 6, 8, 3, 11}  # of 12 the left and the upper are 12 itself, in its own frame
    method = methods("hiprune")(alpha=1)
    assert set(method.select(view, 10).tolist()) == near | {26, 27}
    assert set(method.select(view, 8).tolist()) >= {12, 7}
    assert len(set(method.select(view, 8).tolist()) - near) == 0
    assert methods("hiprune")(alpha=1).select(view, 3).tolist() == [12, 13, 16]
    assert methods("hiprune")().select(view, 24).tolist() == list(range(4, 28))  # too few for an anchor


def test_a_share_of_the_depth_is_a_block_that_attends_to_the_whole_image() -> None:
    shares, found = (0.1, 0.25, 3 / 8, 0.5, 0.75, 1.0), {}
    for family in ("llava", "qwen2_5_vl", "qwen3_vl"):
        found[family] = [find_adapter(build(family)).block_index(share) for share in shares]
    every = [0, 0, 1, 1, 2, 3]
    assert found == {"llava": every, "qwen2_5_vl": [1, 1, 1, 1, 3, 3], "qwen3_vl": every}
    for depth, whole, block in ((24, range(24), 8), (32, [7, 15, 23, 31], 15)):  # LLaVA-1.5, Qwen2.5-VL
        tower: Any = SimpleNamespace(tower_depth=depth, whole_image_blocks=lambda w=whole: w)
        assert ModelAdapter.block_index(tower, HiPrune().object_layer) == block
    with (
        pytest.raises(UserError, match=r"reads vision layers \[9\], but the tower's layers are -4..3"),
        prune(build("qwen3_vl"), HiPrune(ratio=0.5, object_layer=9)),
    ):
        pass


def test_mmtok_weighs_words_and_tokens(methods: Methods) -> None:
    """Picks of a direct reading, where the question is spread widely enough for the weight to matter."""
    generator = torch.Generator().manual_seed(1)
    tokens, features, prompt = (torch.randn(size, 8, generator=generator) for size in (30, 30, 20))

    def spread(rows: Tensor, columns: Tensor, temperature: float) -> Tensor:
        cosines = torch.nn.functional.cosine_similarity(rows[:, None], columns[None], dim=-1)
        return (cosines / temperature).exp() / (cosines / temperature).exp().sum(1, keepdim=True) / len(rows)

    view, found = make_view(tokens, prompt=prompt, vision=Tower(features=features)), []
    for alpha in (0.5, 1.0, 0.0):
        parts = spread(prompt, tokens, 0.3), alpha * spread(features, features, 0.2)
        covers, picks = torch.cat(parts), list[int]()
        for _ in range(12):
            gains = [float(covers[:, [*picks, one]].amax(1).sum()) * (one not in picks) for one in range(30)]
            picks.append(max(range(30), key=gains.__getitem__))
        fields = {} if alpha == 0.5 else {"alpha": alpha}
        found.append(methods("mmtok")(text_temperature=0.3, **fields).select(view, 12).tolist())
        assert found[-1] == picks
    assert len({tuple(one) for one in found}) == 3


def test_features_have_no_effect_on_holov_as_released() -> None:
    """Budgets of the release's whole formula, for any features and any weight of their term, are those without it."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(10):
        attention = torch.rand(144, generator=generator) ** 3
        answer = HoloV(crops=16).select(view_of(torch.ones(144, 1), importance=attention), 40).indices
        want = torch.bincount(answer // 9, minlength=16).tolist()
        for alpha in (0, 0.09, 10):
            features = torch.nn.functional.normalize(torch.randn(16, 9, 8, generator=generator), dim=-1)
            similarity = features @ features.mT * (1 - torch.eye(9))
            variance = ((similarity - similarity.sum(-1, keepdim=True) / 8) ** 2).sum(-1) / 8
            spread = 1000 * attention.view(16, 9)
            means = spread.mean(1, keepdim=True) / (variance.mean(1, keepdim=True) + 1e-6)
            scores = (spread + alpha * variance * means).mean(1)
            shares = scores / (scores.sum() + 1e-6) * 40
            counts = shares.long()
            counts[shares.argsort(descending=True)[: 40 - int(counts.sum())]] += 1
            assert counts.clamp(max=9).tolist() == want


def test_what_overflows_goes_to_other_runs() -> None:
    """All of the second run is kept; what is beyond its size goes to the third."""
    attention = torch.tensor([1.0, 0, 0, 90, 91, 92, 6, 5, 0, 0, 0, 0]) / 300
    view = view_of(torch.ones(12, 2), importance=attention)
    assert HoloV(crops=4).select(view, 6).indices.tolist() == [3, 4, 5, 6, 7, 8]
    assert sorted(HoloV(crops=4).select(view, 12).indices.tolist()) == list(range(12))
    released = HoloV(crops=4, overflow="zeros").select(view, 6)
    assert released.tokens is not None
    assert released.tokens.any(1).tolist() == [True] * 3 + [False] * 3


def test_runs_of_one_token_get_nothing_beside_longer_ones(methods: Methods) -> None:
    """Twenty tokens in sixteen runs: as released, the four runs of two tokens have the whole budget."""
    attention = torch.rand(20, generator=torch.Generator().manual_seed(0)) + 0.5
    released = methods("holov")(crops=16, overflow="zeros").select(view_of(torch.ones(20, 2), importance=attention), 20)
    assert released.tokens.any(1).sum() == 8
    assert sorted(released.indices[:8].tolist()) == list(range(8))
