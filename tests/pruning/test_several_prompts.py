"""Shared rules with a dimension of prompts in front, by the way of a CPU and by that of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from uniprune.pruning import functional, greedy, merging
from uniprune.pruning.functional import (
    ROWS,
    complement,
    cosine_distance,
    cosine_similarity,
    gram,
    group_means,
    largest_in_rows,
    products,
    random_subset,
    random_subsets,
    relevance,
    rows_of,
    top_k,
    true_places,
    unit_vectors,
    weighted_sums,
)
from uniprune.pruning.merging import add_neighbours, combined, merge_into_nearest, merge_with_background

P, N, D = 3, 150, 9


class Kernels:
    """Loops in place of GPU kernels: the state they start from is made for all prompts at once."""

    @classmethod
    def farthest_points(cls, distance: Tensor, nearest: Tensor, count: int, fresh: bool = False) -> Tensor:
        """Return [..., count] picks."""
        if nearest.dim() == 1:
            return greedy._farthest_points(distance, nearest.clone(), count, fresh)
        return torch.stack([cls.farthest_points(*one, count, fresh) for one in zip(distance, nearest, strict=True)])

    @classmethod
    def dpp_map(cls, kernel: Tensor, gain: Tensor, floor: Tensor, count: int) -> Tensor:
        """Return [..., count] picks."""
        if gain.dim() == 1:
            return greedy._dpp_map(kernel, gain.clone(), floor, count)
        return torch.stack([cls.dpp_map(*one, count) for one in zip(kernel, gain, floor, strict=True)])


@pytest.fixture(params=["cpu", "gpu"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take the operations of a GPU, here on the CPU, for "gpu"."""
    if request.param == "gpu":
        for module in (functional, merging):
            monkeypatch.setattr(module, "on_cpu", lambda x: False)
        monkeypatch.setattr(greedy, "fused", lambda matrix: Kernels)
    return str(request.param)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Return numbers of which some are equal."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(4).round().div(4)


def places(count: int, seed: int = 0) -> Tensor:
    """Return [P, count] of N indices, in any order."""
    random = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(N, generator=random)[:count] for _ in range(P)])


X, Y, KEYS, WEIGHTS = numbers(P, N, D), numbers(P, 5, D, seed=1), numbers(P, N, D, seed=2), numbers(P, N, seed=3).abs()
MEMBERS, FEW, OTHERS = places(12).view(P, 4, 3), places(6, seed=1), places(40, seed=2)
RULES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "top_k": (lambda x: top_k(x, 7), (WEIGHTS,)),
    "complement": (lambda taken: complement(N, taken), (FEW,)),
    "cosine_similarity": (cosine_similarity, (X, Y)),
    "cosine_distance": (cosine_distance, (X,)),
    "gram": (gram, (X,)),
    "products": (products, (X, Y)),
    "rows_of": (rows_of, (X, FEW)),
    "largest_in_rows": (lambda x: largest_in_rows(x, 4), (X,)),
    "weighted_sums": (weighted_sums, (X, MEMBERS, WEIGHTS)),
    "group_means": (lambda x, group: group_means(x, group, 7), (X, places(N) % 5)),
    "combined": (combined, (WEIGHTS, X)),
    "add_neighbours": (lambda *x: add_neighbours(*x, neighbours=4), (X, FEW, KEYS, WEIGHTS)),
    "merge_with_background": (lambda *x: merge_with_background(*x, neighbours=4), (X, FEW, KEYS, WEIGHTS)),
    "unit_vectors": (unit_vectors, (X,)),
    "merge_into_nearest": (merge_into_nearest, (X, KEYS, FEW, OTHERS)),
    "nearest_other": (greedy.nearest_other, (cosine_distance(X),)),
    "farthest_points": (lambda x: greedy.farthest_points(x, 9), (cosine_distance(X),)),
    "seeded": (lambda x, seeds: greedy.farthest_points(x, 9, seeds), (cosine_distance(X), FEW)),
    "dpp_map": (lambda x: greedy.dpp_map(x, 5), (cosine_similarity(X),)),
}


@pytest.mark.parametrize("name", RULES)
def test_the_rule_of_each_prompt(name: str, way: str) -> None:
    rule, given = RULES[name]
    found, want = rule(*given), torch.stack([rule(*one) for one in zip(*given, strict=True)])
    assert torch.equal(found, want) if way == "cpu" or not want.is_floating_point() else torch.allclose(found, want)


def test_places_are_found_as_by_searching(way: str) -> None:
    mask = torch.zeros(P, N, dtype=torch.bool).scatter_(1, FEW, True)
    assert torch.equal(true_places(mask, 6), FEW.sort().values)
    assert torch.equal(true_places(mask[0], 6), FEW[0].sort().values)
    assert true_places(mask[:, :0], 0).shape == (P, 0)


@pytest.mark.parametrize("seed", range(4))
def test_inner_products_are_exactly_symmetric(seed: int, way: str) -> None:
    x = torch.randn(2, 2 * ROWS + 37, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for one in (x, x[0], x[:, :1]):
        torch.testing.assert_close(gram(one), one @ one.mT)
        assert torch.equal(gram(one), gram(one).mT)


@pytest.mark.parametrize("count", range(5))
def test_the_largest_are_those_that_are_ranked_first(count: int, way: str) -> None:
    rows = torch.tensor([[1.0, torch.nan, 2, torch.inf], [torch.nan] * 4, [0, 0, -torch.inf, 0], [3, 1, 3, torch.nan]])
    ranked = [sorted(top_k(row.nan_to_num(-torch.inf, torch.inf), count).tolist()) for row in rows]
    assert largest_in_rows(rows, count).tolist() == ranked


def texts(sizes: list[int]) -> Iterator[Tensor]:
    """Yield vectors of every prompt."""
    return (numbers(size, D, seed=size) for size in sizes)


@pytest.mark.parametrize("sizes", [[4, 4, 4], [1, 6, 2]])
def test_each_prompt_has_text_of_its_own(sizes: list[int], way: str) -> None:
    for reduce in (torch.mean, torch.amax):
        want = [relevance(x, text, reduce) for x, text in zip(X, texts(sizes), strict=True)]
        torch.testing.assert_close(relevance(X, list(texts(sizes)), reduce), torch.stack(want))


def test_every_generator_draws_for_itself() -> None:
    def seeded() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (4, 2, 4)]

    found = random_subsets(20, 6, seeded())
    assert torch.equal(found, torch.stack([random_subset(20, 6, one) for one in seeded()]))


def test_nothing_is_merged_into_nothing() -> None:
    assert merge_into_nearest(X, KEYS, FEW[:, :0], OTHERS).shape == (P, 0, D)
    assert torch.equal(merge_into_nearest(X, KEYS, FEW, OTHERS[:, :0]), rows_of(X, FEW))


def test_scores_without_a_rank_spoil_their_prompt_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, where the engine refuses them later."""
    monkeypatch.setattr(functional, "on_cpu", lambda x: False)
    scores = WEIGHTS.clone()
    scores[1, 3] = torch.nan
    found = top_k(scores, 7)
    assert (found[1] == -N - 1).all()
    assert torch.equal(found[::2], top_k(WEIGHTS, 7)[::2])
