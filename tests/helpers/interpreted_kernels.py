"""The GPU kernels of greedy selections, interpreted on the CPU: run by tests/pruning/test_fused.py with
TRITON_INTERPRET=1."""

import pytest
import torch
from torch import Tensor

from uniprune.pruning import greedy
from uniprune.pruning import greedy_triton as fused
from uniprune.pruning.functional import cosine_distance, cosine_similarity

SIZES = [(1, 1), (2, 2), (37, 37), (300, 80), (1024, 20), (1025, 20)]
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
@dtypes
def test_dpp_map(tokens: int, count: int, dtype: torch.dtype) -> None:
    matrix = kernel(tokens, dtype)
    gain, floor = matrix.diagonal(), matrix.diagonal().max() * 1e-6
    want = greedy._dpp_map(matrix, gain.clone(), floor, count)
    assert torch.equal(fused.dpp_map(matrix, gain.clone(), floor, count), want)


@pytest.mark.parametrize("room", list(fused.TILES))
def test_every_size_of_the_kernels_past_the_rank(room: int) -> None:
    """Picks may differ among rounding noise, but stay distinct."""
    matrix = kernel(70, torch.float32, rank=24)
    gain, floor = matrix.diagonal(), matrix.diagonal().max() * 70 * torch.finfo(torch.float32).eps
    got = fused.dpp_map(matrix, gain.clone(), floor, 70, room)
    assert torch.equal(got[:20], greedy._dpp_map(matrix, gain.clone(), floor, 20))
    assert sorted(got.tolist()) == list(range(70))


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
    cpu = torch.device("cpu")

    def other(matrix: Tensor, *given: object) -> Tensor:
        return torch.arange(60)

    assert fused.disagreement(greedy._farthest_points, greedy._dpp_map, cpu, dtype) == ""
    assert "determinantal" in fused.disagreement(greedy._farthest_points, other, cpu, dtype)
    assert "farthest points" in fused.disagreement(other, greedy._dpp_map, cpu, dtype)
