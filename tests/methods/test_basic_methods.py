"""The baselines and the selection rules they share, where the released code goes wrong."""

import pytest
import torch

from tests.helpers.views import make_view
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.none import NoPruning
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.pruning.functional import cosine_distance, random_subset, top_k
from uniprune.pruning.greedy import farthest_points
from uniprune.registry import METHODS


def test_random_subset_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([random_subset(10, 3, generator).sort().values for _ in range(3000)])
    assert all(len(set(draw.tolist())) == 3 for draw in draws[:50])
    shares = draws.flatten().bincount(minlength=10) / len(draws)
    assert (shares - 0.3).abs().max() < 0.04  # about five standard deviations


def test_top_k_breaks_ties_by_index() -> None:
    scores = torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0, 3.0])
    assert top_k(scores, 4).tolist() == [1, 3, 5, 0]
    assert top_k(torch.zeros(2000), 7).tolist() == list(range(7))


@pytest.mark.parametrize("seeds", [None, torch.tensor([3, 40])], ids=["unseeded", "seeded"])
def test_farthest_points_is_the_textbook_greedy(seeds: torch.Tensor | None) -> None:
    """Against the O(N K^2) rule that looks at all selected points at every step."""
    distance = cosine_distance(torch.randn(60, 8, generator=torch.Generator().manual_seed(1)))
    if seeds is None:
        picks = [int(distance.fill_diagonal_(torch.inf).min(0).values.argmax())]
        distance.fill_diagonal_(0)
    else:
        picks = seeds.tolist()
    while len(picks) < 20:
        nearest = distance[picks].min(0).values
        nearest[picks] = -1
        picks.append(int(nearest.argmax()))
    assert farthest_points(distance, 20, seeds).tolist() == picks


def test_farthest_points_with_duplicates_and_zero_vectors() -> None:
    """The released code picks one index again and again once only duplicates are left, and gives up at zero vectors."""
    points = torch.randn(8, 4, generator=torch.Generator().manual_seed(2)).repeat(2, 1)
    picks = farthest_points(cosine_distance(points), 16).tolist()
    assert sorted(picks) == list(range(16))
    assert len({index % 8 for index in picks[:8]}) == 8
    assert sorted(farthest_points(cosine_distance(torch.zeros(5, 4)), 5).tolist()) == list(range(5))
    mixed = torch.cat([torch.zeros(1, 4), points[:7]])
    assert cosine_distance(mixed).isfinite().all()
    assert len(set(farthest_points(cosine_distance(mixed), 4).tolist())) == 4
    assert farthest_points(cosine_distance(points[:1]), 1).tolist() == [0]


def test_half_precision_is_scored_in_float32() -> None:
    features = torch.randn(144, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(DivPrune().select(make_view(features), 32), DivPrune().select(make_view(features.float()), 32))


def test_registered_names_and_kinds() -> None:
    want = {
        "none": ("none", NoPruning, 0),
        "random-pre": ("pre-llm", RandomPre, 0),
        "random-intra": ("intra-llm", RandomIntra, 2),
        "divprune": ("pre-llm", DivPrune, 0),
        "fastv": ("intra-llm", FastV, 2),
    }
    for name, (kind, method, layer) in want.items():
        assert METHODS.get(name) is method
        assert (method.kind, method().layer) == (kind, layer)
    assert NoPruning().with_ratio(0.1) == NoPruning()
    assert NoPruning(ratio=0.1).schedule(28) == ()
