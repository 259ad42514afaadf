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
        tower: Any = SimpleNamespace(vision_blocks=lambda n=depth: range(n), whole_image_blocks=lambda w=whole: w)
        assert ModelAdapter.block_index(tower, HiPrune().object_layer) == block
    with (
        pytest.raises(UserError, match=r"reads vision layers \[9\], but the tower's layers are -4..3"),
        prune(build("qwen3_vl"), HiPrune(ratio=0.5, object_layer=9)),
    ):
        pass


def test_mmtok_weighs_words_and_tokens(methods: Methods) -> None:
    """Picks of a direct reading, where the question is spread widely enough for the weight to matter."""
    generator = torch.Generator().manual_seed(1)
    tokens, features, prompt = (torch.randn(size, 8, generator=generator) for size in (30, 30, 3))

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
    assert len({tuple(sorted(one)) for one in found}) == 3
