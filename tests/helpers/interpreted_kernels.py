"""The GPU kernels of greedy selections, interpreted on the CPU: run by tests/pruning/test_fused.py with
TRITON_INTERPRET=1."""

from typing import Any

import pytest
import torch
from torch import Tensor

from uniprune.pruning import greedy
from uniprune.pruning import greedy_triton as fused
from uniprune.pruning.functional import cosine_distance, cosine_similarity

SIZES = [(1, 1), (2, 2), (37, 37), (300, 40), (1024, 9), (1025, 9)]
sizes = pytest.mark.parametrize(("tokens", "count"), SIZES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def cloud(tokens: int, dtype: torch.dtype, width: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    centres = torch.randn(8, width, generator=generator)[torch.arange(tokens) % 8]
    return (centres + 0.5 * torch.randn(tokens, width, generator=generator)).to(dtype)


def state(distance: Tensor, seeds: list[int]) -> Tensor:
    at = torch.tensor(seeds)
    return distance[at].amin(0).index_fill(0, at, -torch.inf)


@sizes
@dtypes
def test_farthest_points(tokens: int, count: int, dtype: torch.dtype) -> None:
    distance = cosine_distance(cloud(tokens, dtype))
    seeds = [tokens // 2, 0][: max(1, tokens - count)]
    near, count = state(distance, seeds), min(count, tokens - len(seeds))
    want = greedy._farthest_points(distance, near.clone(), count)
    assert torch.equal(fused.farthest_points(distance, near, count), want)


def test_of_equally_far_points_the_first_is_taken() -> None:
    points = cloud(40, torch.float32)[:10].repeat(30, 1)
    distance = cosine_distance(points)
    near = state(distance, [17])
    want = greedy._farthest_points(distance, near.clone(), 299)
    assert torch.equal(fused.farthest_points(distance, near, 299), want)
    assert len(set(want.tolist())) == 299


def test_rows_may_lie_apart() -> None:
    whole = cosine_distance(cloud(64, torch.float32))
    near = state(whole[:50, :50], [3])
    want = greedy._farthest_points(whole[:50, :50], near.clone(), 20)
    assert torch.equal(fused.farthest_points(whole[:50, :50], near, 20), want)


def kernel(tokens: int, dtype: torch.dtype, rank: int = 96) -> Tensor:
    weight = torch.rand(tokens, generator=torch.Generator().manual_seed(1)).to(dtype)
    return cosine_similarity(cloud(tokens, dtype, rank)) * weight[:, None] * weight


@sizes
def test_the_first_pick_of_a_fresh_selection(tokens: int, count: int) -> None:
    distance = cosine_distance(cloud(tokens, torch.float32))
    near = greedy.nearest_other(distance)
    want = greedy._farthest_points(distance, near.clone(), count, fresh=True)
    assert torch.equal(fused.farthest_points(distance, near, count, fresh=True), want)
    assert torch.equal(greedy.farthest_points(distance, count), want)


def batch(prompts: int, tokens: int) -> Tensor:
    """Return distances [prompts, tokens, tokens] of other clouds; of the last one, half are duplicates."""
    points = cloud(prompts * tokens, torch.float32).view(prompts, tokens, -1)
    points[-1, -(tokens // 2) :] = points[-1, : tokens // 2].clone()
    return cosine_distance(points)


@pytest.mark.parametrize("tokens", [2, 37, 300])
@pytest.mark.parametrize("prompts", [1, 3])
def test_prompts_are_decided_apart(prompts: int, tokens: int) -> None:
    distance = batch(prompts, tokens)
    near, count = greedy.nearest_other(distance), min(tokens // 2, 20)
    every = list(zip(distance, near, strict=True))
    first = torch.stack([greedy._farthest_points(one, own.clone(), count, fresh=True) for one, own in every])
    assert torch.equal(fused.farthest_points(distance, near, count, fresh=True), first)
    near[:, 1] = -torch.inf
    later = torch.stack([greedy._farthest_points(one, own.clone(), count) for one, own in every])
    assert torch.equal(fused.farthest_points(distance, near, count), later)
    kernels = torch.stack([kernel(tokens, torch.float32), kernel(tokens, torch.float32).flip(0, 1)])
    gain, floor = kernels.diagonal(dim1=-2, dim2=-1), torch.tensor([1e-6, 2e-6])
    found = fused.dpp_map(kernels, gain, floor, count)
    every = zip(kernels, gain.clone(), floor, strict=True)
    assert torch.equal(found, torch.stack([greedy._dpp_map(*prompt, count) for prompt in every]))


def test_prompts_may_lie_apart() -> None:
    whole = batch(4, 64)
    part = whole[::2, :50, :50]
    near = greedy.nearest_other(part)
    want = torch.stack([greedy._farthest_points(x, n.clone(), 20, True) for x, n in zip(part, near, strict=True)])
    assert torch.equal(fused.farthest_points(part, near, 20, fresh=True), want)
    four = fused.farthest_points(whole.view(2, 2, 64, 64), greedy.nearest_other(whole).view(2, 2, 64), 9, fresh=True)
    assert torch.equal(four[0, 0], greedy.farthest_points(whole[0], 9))


@sizes
@dtypes
def test_dpp_map(tokens: int, count: int, dtype: torch.dtype) -> None:
    matrix = kernel(tokens, dtype)
    gain, floor = matrix.diagonal(), matrix.diagonal().max() * 1e-6
    want = greedy._dpp_map(matrix, gain.clone(), floor, count)
    assert torch.equal(fused.dpp_map(matrix, gain.clone(), floor, count), want)


@pytest.mark.parametrize("room", list(fused.TILES))
def test_every_size_of_the_kernels_past_the_rank(room: int) -> None:
    """Picks may differ among rounding noise, but stay distinct."""
    matrix = kernel(20, torch.float32, rank=12)
    gain, floor = matrix.diagonal(), matrix.diagonal().max() * 20 * torch.finfo(torch.float32).eps
    got = fused.dpp_map(matrix, gain.clone(), floor, 20, room)
    assert torch.equal(got[:10], greedy._dpp_map(matrix, gain.clone(), floor, 10))
    assert sorted(got.tolist()) == list(range(20))


def test_nothing_to_pick() -> None:
    matrix = kernel(30, torch.float32)
    assert len(fused.farthest_points(matrix, state(matrix, [1]), 0)) == 0
    assert len(fused.dpp_map(matrix, matrix.diagonal().clone(), matrix.max(), 0)) == 0


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_broken_numbers_never_point_outside() -> None:
    bad = torch.full((30, 30), torch.nan)
    for picks in (
        fused.farthest_points(bad, bad[0].clone(), 30),
        fused.dpp_map(bad, bad[0].clone(), bad[0, 0].clone(), 30),
    ):
        assert int(picks.min()) >= 0
        assert int(picks.max()) < 30


@dtypes
def test_the_check_before_use(dtype: torch.dtype) -> None:
    def other(matrix: Tensor, *given: Any) -> Tensor:
        return torch.arange(9)

    def other_later(matrix: Tensor, *given: Any) -> Tensor:
        return (other if matrix.storage_offset() else greedy._farthest_points)(matrix, *given)

    def check(farthest: fused.Loop, dpp: fused.Loop) -> str:
        return fused.disagreement(farthest, dpp, torch.device("cpu"), dtype, picks=9)

    assert check(greedy._farthest_points, greedy._dpp_map) == ""
    assert "determinantal" in check(greedy._farthest_points, other)
    assert "farthest points" in check(other, greedy._dpp_map)
    assert "farthest points" in check(other_later, greedy._dpp_map)
