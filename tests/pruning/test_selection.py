"""Shared selection rules against brute-force transcriptions of their definitions, in float64."""

from collections import Counter

import numpy as np
import pytest
import torch

from tests.helpers.points import cloud, cosine
from uniprune.pruning import functional as selection
from uniprune.pruning.functional import (
    ROWS,
    complement,
    cosine_distance,
    cosine_similarity,
    count_outliers,
    group_means,
    inverse_norms,
    largest_in_rows,
    rotate_half,
    top_k,
    weighted_sums,
)
from uniprune.pruning.greedy import dpp_map, farthest_points, nearest_other
from uniprune.pruning.grids import grid_blocks, pool_grid
from uniprune.pruning.merging import add_neighbours, merge_into_nearest, merge_with_background

seeds = pytest.mark.parametrize("seed", range(4))


def test_top_k_breaks_ties_towards_the_lowest_index() -> None:
    assert top_k(torch.tensor([1.0, 3, 2, 3, 3]), 4).tolist() == [1, 3, 4, 2]


def test_cosines() -> None:
    a, b = cloud(0, 5), cloud(1, 7)
    want = torch.tensor([[cosine(x, y) for y in b] for x in a], dtype=torch.float64)
    torch.testing.assert_close(cosine_similarity(a, b), want)
    want_self = torch.tensor([[cosine(x, y) for y in a] for x in a], dtype=torch.float64)
    torch.testing.assert_close(cosine_similarity(a), want_self)
    torch.testing.assert_close(cosine_distance(a), 1 - cosine_similarity(a, a))
    torch.testing.assert_close(nearest_other(cosine_distance(a)), (1 - want_self + torch.eye(5) * 9).amin(1))
    assert cosine_similarity(torch.zeros(1, 6), b.float()).tolist() == [[0.0] * 7]
    assert cosine_distance(a.half()).dtype == torch.float32


@seeds
@pytest.mark.parametrize("given", [None, [3], [5, 1, 9]])
def test_farthest_points(seed: int, given: list[int] | None) -> None:
    distance = cosine_distance(cloud(seed))
    n = len(distance)
    picks = list(given or [max(range(n), key=lambda j: min(float(distance[i, j]) for i in range(n) if i != j))])
    while len(picks) < 10:
        rest = [j for j in range(n) if j not in picks]
        picks.append(max(rest, key=lambda j: min(float(distance[i, j]) for i in picks)))
    got = farthest_points(distance, 10, None if given is None else torch.tensor(given))
    assert got.tolist() == picks


def test_farthest_points_with_duplicates_and_many_seeds() -> None:
    twice = cloud(0, 6).repeat(2, 1)
    assert sorted(farthest_points(cosine_distance(twice), 12).tolist()) == list(range(12))
    assert farthest_points(cosine_distance(twice), 2, torch.tensor([4, 3, 2])).tolist() == [4, 3]


@seeds
def test_dpp_map_maximises_the_determinant_greedily(seed: int) -> None:
    x = cloud(seed, 16, 12)
    kernel = x @ x.T
    picks: list[int] = []
    while len(picks) < 8:
        rest = [j for j in range(16) if j not in picks]
        picks.append(max(rest, key=lambda j: float(torch.linalg.det(kernel[[*picks, j]][:, [*picks, j]]))))
    assert dpp_map(kernel, 8).tolist() == picks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_dpp_map_past_the_rank_stays_distinct(dtype: torch.dtype, scale: float) -> None:
    x = cloud(0, 20, 3).to(dtype) * scale
    got = dpp_map(x @ x.T, 20)
    assert sorted(got.tolist()) == list(range(20))
    assert got[:3].tolist() == dpp_map((x.double() @ x.double().T), 3).tolist()


def test_dpp_map_far_past_the_rank_stays_distinct() -> None:
    """Hundreds of picks from a kernel of rank 64: rounding noise must not grow until it is NaN."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(576, 64, generator=generator), dim=1)
    weight = torch.rand(576, generator=generator)
    kernel = weight[:, None] * (unit @ unit.T) * weight
    assert len(set(dpp_map(kernel, 576).tolist())) == 576


@seeds
def test_many_tokens_are_worked_on_in_parts(seed: int) -> None:
    """Results do not show where one part of the rows ends."""
    x = cloud(seed, 2 * ROWS + 37)
    distance = cosine_distance(x)
    torch.testing.assert_close(distance, 1 - cosine_similarity(x, x))
    assert torch.equal(nearest_other(distance), distance.clone().fill_diagonal_(torch.inf).amin(0))


def test_largest_in_rows_takes_the_first_of_equals() -> None:
    for row in (torch.tensor([1.0, 3, 2, 3, 2, 2]), torch.zeros(6)):
        for count in range(7):
            want = sorted(top_k(row, count).tolist())
            assert largest_in_rows(row[None], count).tolist() == [want]


def test_largest_in_rows_takes_what_is_no_number_last() -> None:
    rows = torch.tensor([[1.0, torch.nan, 2, torch.inf], [torch.nan] * 4])
    assert largest_in_rows(rows, 2).tolist() == [[2, 3], [0, 1]]
    assert largest_in_rows(rows, 4).tolist() == [[0, 1, 2, 3]] * 2


@seeds
@pytest.mark.parametrize("neighbours", [1, 5, 40])
def test_add_neighbours(seed: int, neighbours: int) -> None:
    x, keys, weights = cloud(seed), cloud(seed + 10), torch.linspace(0.1, 2, 24, dtype=torch.float64)
    anchors = torch.tensor([3, 17, 4])
    want = []
    for a in anchors.tolist():
        others = sorted((j for j in range(24) if j != a), key=lambda j: -cosine(keys[a], keys[j]))[:neighbours]
        want.append(x[a] + sum(weights[j] * x[j] for j in others))
    torch.testing.assert_close(add_neighbours(x, anchors, keys, weights, neighbours), torch.stack(want))


def test_weighted_sums() -> None:
    x, weights = cloud(0), torch.linspace(0.1, 2, 24, dtype=torch.float64)
    members = torch.tensor([[3, 1, 3], [0, 23, 7]])
    want = torch.stack([sum(weights[j] * x[j] for j in group) for group in members.tolist()])
    torch.testing.assert_close(weighted_sums(x, members, weights), want)
    torch.testing.assert_close(weighted_sums(x.half(), members, weights), want.half(), rtol=1e-2, atol=1e-2)
    assert weighted_sums(x, members[:, :0], weights).tolist() == [[0.0] * 6] * 2
    assert weighted_sums(x, members[:0], weights).shape == (0, 6)


def test_inverse_norms() -> None:
    x = torch.tensor([[3.0, 4], [0, 0], [0, 2]])
    torch.testing.assert_close(x * inverse_norms(x)[:, None], torch.tensor([[0.6, 0.8], [0, 0], [0, 1]]))


def test_a_token_alone_has_no_neighbours() -> None:
    x = cloud(0, 1)
    assert torch.equal(add_neighbours(x, torch.tensor([0]), x, x.new_ones(1), 32), x)


def test_merge_with_background() -> None:
    x, keys, weights = cloud(0), cloud(10), torch.linspace(0.1, 2, 24, dtype=torch.float64)
    anchors = torch.tensor([3, 17, 4])
    got = merge_with_background(x, anchors, keys, weights, 5)
    torch.testing.assert_close(got[:3], add_neighbours(x, anchors, keys, weights, 5))
    torch.testing.assert_close(got[3], sum(weights[j] * x[j] for j in range(24) if j not in (3, 17, 4)))
    everything = merge_with_background(x, torch.arange(24), keys, weights, 5)
    assert everything[24].tolist() == [0.0] * 6


@seeds
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_count_outliers(seed: int, dtype: type) -> None:
    scores = np.random.default_rng(seed).lognormal(size=203).astype(dtype)
    low, high = np.percentile(scores, [25, 75])
    want = int((scores > high + 1.5 * (high - low)).sum())
    assert want > 0
    assert count_outliers(torch.from_numpy(scores)) == want
    assert count_outliers(torch.ones(7)) == 0  # strictly above the fence


@seeds
def test_merge_into_nearest(seed: int) -> None:
    x, keys = cloud(seed), cloud(seed + 10)
    anchors, others = torch.tensor([2, 11, 20, 5]), torch.tensor([0, 1, 3, 4, 8, 9])
    members: dict[int, list[int]] = {a: [] for a in anchors.tolist()}
    for j in others.tolist():
        members[max(anchors.tolist(), key=lambda a: cosine(keys[a], keys[j]))].append(j)
    want = [x[a] + (x[js].mean(0) if js else 0) for a, js in members.items()]
    torch.testing.assert_close(merge_into_nearest(x, keys, anchors, others), torch.stack(want))


def test_merge_into_nearest_without_others() -> None:
    x, anchors = cloud(0), torch.tensor([4, 2])
    torch.testing.assert_close(merge_into_nearest(x, x, anchors, anchors[:0]), x[anchors])
    assert merge_into_nearest(x, x, anchors[:0], anchors).shape == (0, 6)


def test_group_means() -> None:
    x = torch.tensor([[1.0, 0], [3, 2], [5, 5]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        got = group_means(x.to(dtype), torch.tensor([2, 2, 0]), 4)
        assert got.dtype == dtype
        assert got.tolist() == [[5, 5], [0, 0], [2, 1], [0, 0]]
    assert group_means(x[:0], torch.tensor([], dtype=torch.long), 2).tolist() == [[0, 0], [0, 0]]


def test_complement() -> None:
    assert complement(6, torch.tensor([4, 1])).tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize(
    "grids", [[(1, 24, 24)], [(1, 7, 5)], [(1, 1, 30)], [(1, 30, 1)], [(3, 4, 6)], [(1, 16, 16)] * 3]
)
@pytest.mark.parametrize("share", [0.05, 0.111, 0.25, 0.333, 0.77, 1.0])
def test_blocks_cover_every_frame_evenly(grids: list[tuple[int, int, int]], share: float) -> None:
    frames = [(h, w) for t, h, w in grids for _ in range(t)]
    total = sum(h * w for h, w in frames)
    keep = max(len(frames), round(share * total))
    blocks = grid_blocks(grids, keep)
    sizes = Counter(blocks.tolist())
    assert sorted(sizes) == list(range(keep))
    assert max(sizes.values()) <= 6 * min(sizes.values())
    start, seen = 0, set()
    for h, w in frames:
        frame = blocks[start : start + h * w].view(h, w)
        for number in frame.unique().tolist():
            cells = (frame == number).nonzero()
            box = cells.amax(0) - cells.amin(0) + 1
            assert int(box.prod()) == len(cells)  # a rectangle
            assert number not in seen  # of one frame only
            seen.add(number)
        start += h * w


def test_a_quarter_of_a_square_is_two_by_two_pooling() -> None:
    x = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    slots, means = pool_grid(x[0].flatten(1).T, [(1, 24, 24)], 144)
    torch.testing.assert_close(means, torch.nn.functional.avg_pool2d(x, 2)[0].flatten(1).T)
    assert slots[:3].tolist() == [1, 3, 5]


def test_frames_without_a_share_are_dropped() -> None:
    assert grid_blocks([(1, 2, 2), (1, 1, 1), (1, 2, 2)], 2).tolist() == [0, 0, 0, 0, -1, 1, 1, 1, 1]
    slots, means = pool_grid(torch.arange(9.0)[:, None], [(1, 2, 2), (1, 1, 1), (1, 2, 2)], 2)
    assert slots.tolist() == [1, 6]
    assert means.tolist() == [[1.5], [6.5]]


def test_everything_public_is_tested() -> None:
    own = {name for name, item in vars(selection).items() if getattr(item, "__module__", "") == selection.__name__}
    elsewhere = {"random_subset", "at_least_float32", "rows_at_a_time", "on_cpu", "fused", "exact_cosines"}
    elsewhere |= {"gram", "products", "random_subsets", "relevance", "relevance_of_units", "rows_of", "true_places"}
    elsewhere |= {"unit_vectors"}  # all by test_several_prompts
    assert {name for name in own if not name.startswith("_")} - elsewhere <= set(globals())


def test_rotate_half_is_a_quarter_turn_of_pairs() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert rotate_half(x).tolist() == [[-3, -4, 1, 2]]
    assert torch.equal(rotate_half(rotate_half(x)), -x)
