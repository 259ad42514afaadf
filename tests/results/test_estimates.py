"""Estimates, paired tests, ranks and headlines on numbers small enough to be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.helpers.records import score
from uniprune.results.statistics import Estimate, RankInterval, holm, mean, paired, resample, standings
from uniprune.results.statistics.headline import cluster_sums, headline


def estimate(value: float, draws: list[float], clusters: int = 10, share: bool = False) -> Estimate:
    return Estimate(value, np.array(draws, float), clusters, share)


def test_the_error_is_the_sample_standard_deviation_of_the_draws() -> None:
    assert estimate(2, [1, 2, 3, 4]).error == pytest.approx((5 / 3) ** 0.5)


def test_an_interval_holds_95_percent_of_the_draws() -> None:
    assert estimate(50, list(range(101))).interval() == pytest.approx((2.5, 97.5))


@pytest.mark.parametrize(("clusters", "there"), [(0, False), (1, False), (2, True)])
def test_one_cluster_has_no_interval(clusters: int, there: bool) -> None:
    assert (estimate(1, [0, 1, 2], clusters).interval() is not None) is there


def test_all_right_has_the_exact_binomial_interval() -> None:
    low, high = estimate(100, [100, 100], 10, share=True).interval() or (0, 0)
    assert (low, high) == pytest.approx((100 * 0.025**0.1, 100))
    low, high = estimate(0, [0, 0], 10, share=True).interval() or (0, 0)
    assert (low, high) == pytest.approx((0, 100 - 100 * 0.025**0.1))


def test_differences_and_ratios_are_taken_draw_by_draw() -> None:
    one, other = estimate(60, [60, 70, 50], 9), estimate(30, [20, 40, 0], 4)
    difference, ratio = one - other, one / other
    assert (difference.value, difference.draws.tolist(), difference.clusters) == (30, [40, 30, 50], 4)
    assert (ratio.value, ratio.clusters) == (200, 4)
    assert ratio.draws.tolist() == [300, 175, 200]  # where the other is zero, the estimate itself


def test_a_mean_is_taken_draw_by_draw_and_as_sure_as_its_least_sure_part_allows() -> None:
    both = mean([estimate(60, [60, 70], 10, share=True), estimate(20, [10, 40], 30)])
    assert (both.value, both.draws.tolist(), both.share) == (40, [35, 55], False)
    assert both.clusters == int(4 / (1 / 10 + 1 / 30))
    assert mean([estimate(60, [60, 70], 10), estimate(20, [10, 40], 0)]).clusters == 0


def test_a_moved_estimate_takes_its_draws_along() -> None:
    moved = estimate(60, [60, 70]).moved(50)
    assert (moved.value, moved.draws.tolist()) == (50, [50, 60])


def test_the_same_name_draws_the_same_clusters_and_another_name_others() -> None:
    credits = score({str(i): float(i % 3 > 0) for i in range(30)})
    one, same, other = (resample([credits], name, 50)[0].draws for name in ("x", "x", "y"))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_paired_test_is_students_with_the_small_sample_correction() -> None:
    difference = estimate(3, [1, 2, 3, 4, 5], clusters=5)
    error = difference.error * (5 / 4) ** 0.5
    test = paired(difference)
    assert test.p == pytest.approx(2 * stats.t.sf(3 / error, 4))
    assert (test.low, test.high) == pytest.approx(
        (3 - stats.t.ppf(0.975, 4) * error, 3 + stats.t.ppf(0.975, 4) * error)
    )


def test_without_any_spread_the_sign_test_over_clusters_decides() -> None:
    assert paired(estimate(2, [2, 2], clusters=6)).p == pytest.approx(2 * 0.5**6)
    assert paired(estimate(2, [2, 2], clusters=1)).p == 1
    assert paired(estimate(0, [0, 0], clusters=6)).p == 1


def test_holm_multiplies_the_smallest_by_the_number_of_tests() -> None:
    assert holm([0.02, 0.5]) == pytest.approx([0.04, 0.5])


def test_ranks_leave_open_what_corrected_tests_leave_open() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, 2000)
    first, second = estimate(80, list(80 + noise), 50), estimate(79.9, list(79.9 + rng.normal(0, 1, 2000)), 50)
    last = estimate(60, list(60 + rng.normal(0, 1, 2000)), 50)
    assert standings([last, first, second]) == [
        RankInterval(3, 3, 3, tied=False), RankInterval(1, 1, 2, tied=True), RankInterval(2, 1, 2, tied=True)
    ]  # fmt: skip


def test_a_difference_that_only_an_uncorrected_test_finds_does_not_rank() -> None:
    """Two standard errors are 4.6 % of one test, and 14 % after three."""
    rng = np.random.default_rng(1)
    base = [estimate(v, list(v + rng.normal(0, 1, 4000)), 10**6) for v in (50.0, 50.0, 52.83)]
    assert [one.high for one in standings(base)] == [3, 3, 3]
    assert paired(base[2] - base[0]).p < 0.05


def test_items_of_one_cluster_are_summed() -> None:
    clusters = {"a": "image 1", "b": "image 1"}
    sums = cluster_sums([score({"a": 1, "b": 0.5, "c": 1}, clusters=clusters)])
    assert sorted(map(tuple, sums[0, :, 0].tolist())) == [(1, 1), (1.5, 2)]
    [one] = resample([score({"a": 1, "b": 0, "c": 1}, clusters=clusters)], "x", 20)
    assert one.clusters == 2


def test_a_headline_is_the_mean_of_the_parts_that_have_items() -> None:
    sums = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    assert headline(sums) == pytest.approx(100 * (1 / 2 + 3 / 4) / 2)
    assert headline(np.zeros((3, 2))) == 0
    f1 = {"F1": {"a": (2.0, 2.0), "b": (0.0, 1.0)}}
    [one] = resample([score({"a": 1, "b": 0}, parts=f1)], "x", 20)
    assert one.value == pytest.approx(200 / 3)
