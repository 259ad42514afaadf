"""Estimates, paired tests, ranks and headlines on numbers small enough to be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.helpers.records import score
from uniprune.results.statistics import (
    FEWEST,
    Estimate,
    RankInterval,
    holm,
    jointly,
    mean,
    paired,
    resample,
    standings,
)
from uniprune.results.statistics.bootstrap import resampled_means
from uniprune.results.statistics.estimate import POSITIVE, SHARE, Scale
from uniprune.results.statistics.headline import cluster_sums, headline, strata
from uniprune.results.statistics.sources import Source, spread

FREE: Scale = (-np.inf, np.inf)
DRAWN = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
"""Draws that are as normal as a thousand can be."""


def estimate(
    value: float, draws: list[float], clusters: int = 10, scale: Scale = FREE, name: str = "x", **seeds: Source
) -> Estimate:
    return Estimate(value, {name: Source.of(np.array(draws, float) - value, clusters)}, seeds, scale)


def drawn(one: Estimate) -> list[float]:
    return [float(one.value + deviation) for deviation in one.deviations]


def test_the_error_is_the_sample_standard_deviation_of_the_draws() -> None:
    assert estimate(2, [1, 2, 3, 4]).error == pytest.approx((5 / 3) ** 0.5)


def test_an_interval_holds_95_percent_of_the_draws_of_many_clusters() -> None:
    assert estimate(50, list(range(101)), 10**6).interval() == pytest.approx((2.5, 97.5), abs=1e-3)


def test_an_interval_of_few_clusters_is_as_much_wider_as_students_t() -> None:
    low, high = estimate(50, list(range(101)), 6).interval() or (0, 0)
    wider = stats.t.ppf(0.975, 5) / stats.norm.ppf(0.975)
    assert (low, high) == pytest.approx((50 - 47.5 * wider, 50 + 47.5 * wider))


@pytest.mark.parametrize(("scale", "expected"), [(SHARE, (0, 100)), (POSITIVE, (0, 132)), ((-50.0, 100.0), (-32, 100))])
def test_an_interval_stays_on_the_scale(scale: Scale, expected: tuple[float, float]) -> None:
    assert estimate(50, [50 + 42 * x for x in DRAWN], 10**6, scale).interval() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("clusters", "there"), [(0, False), (1, False), (FEWEST - 1, False), (FEWEST, True)])
def test_too_few_clusters_have_neither_interval_nor_test(clusters: int, there: bool) -> None:
    one = estimate(1, [0, 1, 2], clusters)
    assert (one.interval() is not None) is (paired(one) is not None) is one.enough is there


def test_a_mean_with_one_small_benchmark_has_no_interval() -> None:
    both = mean([estimate(1, [0, 1, 2], 100), estimate(1, [0, 1, 2], 4, name="y")])
    assert (both.clusters, both.interval(), paired(both)) == (4, None, None)


def test_all_right_has_the_exact_binomial_interval() -> None:
    low, high = estimate(100, [100, 100], 10, SHARE).interval() or (0, 0)
    assert (low, high) == pytest.approx((100 * 0.025**0.1, 100))
    low, high = estimate(0, [0, 0], 10, SHARE).interval() or (0, 0)
    assert (low, high) == pytest.approx((0, 100 - 100 * 0.025**0.1))


def test_no_draw_differs_on_a_scale_without_end() -> None:
    assert estimate(0, [0, 0], 10, POSITIVE).interval() is None


def test_differences_and_ratios_are_taken_draw_by_draw() -> None:
    one, other = estimate(60, [60, 70, 50], 9, SHARE), estimate(30, [20, 40, 0], 4, SHARE)
    difference, ratio = one - other, one / other
    assert (difference.value, drawn(difference), difference.clusters) == (30, [40, 30, 50], 4)
    assert (difference.scale, ratio.scale) == ((-100, 100), (0, np.inf))
    assert (ratio.value, ratio.clusters) == (200, 4)
    assert drawn(ratio) == [300, 175, 200]  # where the other is zero, the estimate itself


def test_a_mean_is_taken_draw_by_draw_and_over_benchmarks_source_by_source() -> None:
    both = mean([estimate(60, [60, 70], 10, SHARE), estimate(20, [10, 40], 30, SHARE)])
    assert (both.value, drawn(both), both.scale) == (40, [35, 55], SHARE)
    assert (len(both.rows), both.clusters) == (1, 10)
    apart = mean([estimate(60, [60, 70], 10), estimate(20, [10, 40], 30, name="y")])
    assert (drawn(apart), {name: source.units for name, source in apart.rows.items()}) == ([35, 55], {"x": 10, "y": 30})


def test_a_mean_over_methods_does_not_multiply_the_images() -> None:
    """The mean of ten methods on the same twelve images is as sure as twelve images allow, not 120."""
    methods = [estimate(50 + m, [50 + m + 5 * x for x in DRAWN], 12) for m in range(10)]
    assert spread(mean(methods).rows).freedom == pytest.approx(11)
    benchmarks = [estimate(50, [50 + 5 * x for x in DRAWN], 12, name=f"{m}") for m in range(10)]
    assert spread(mean(benchmarks).rows).freedom == pytest.approx(110)


def test_benchmarks_without_spread_add_no_certainty() -> None:
    parts = [estimate(50, [40, 60], 12), *(estimate(100, [100, 100], 12, name=f"{m}") for m in range(9))]
    assert spread(mean(parts).rows).freedom == pytest.approx(11)


def test_a_moved_estimate_takes_its_draws_along_and_a_shifted_one_its_scale() -> None:
    one = estimate(60, [60, 70], scale=SHARE)
    assert (one.moved(50).value, drawn(one.moved(50)), one.moved(50).scale) == (50, [50, 60], SHARE)
    assert (one.shifted(-100).value, one.shifted(-100).scale) == (-40, (-100, 0))


def test_the_same_name_draws_the_same_clusters_and_another_name_others() -> None:
    credits = score({str(i): float(i % 3 > 0) for i in range(30)})
    one, same, other = (resample([credits], name, 50)[0].deviations for name in ("x", "x", "y"))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_paired_test_is_students() -> None:
    difference = estimate(3, [1, 2, 3, 4, 5], clusters=5)
    test, error = paired(difference), difference.error
    assert test is not None
    assert test.p == pytest.approx(2 * stats.t.sf(3 / error, 4))
    width = stats.t.ppf(0.975, 4) * error
    assert (test.low, test.high) == pytest.approx((3 - width, 3 + width))


@pytest.mark.parametrize("value", [0.1, 3.0, 9.0, 60.0])
def test_seeds_add_their_own_t_and_interval_and_p_are_one_procedure(value: float) -> None:
    two = Source.of(np.array(DRAWN) * 0.5, 2)
    difference = estimate(value, [value + 2 * x for x in DRAWN], 30, seeds=two)
    test = paired(difference)
    assert test is not None
    rows, seeds = spread(difference.rows).error, two.variance**0.5
    margin = np.hypot(stats.t.ppf(0.975, 29) * rows, stats.t.ppf(0.975, 1) * seeds)
    assert test.high - value == pytest.approx(margin)
    at = np.hypot(stats.t.isf(test.p / 2, 29) * rows, stats.t.isf(test.p / 2, 1) * seeds)
    assert at == pytest.approx(value, rel=1e-6)
    assert (test.p < 0.05) is (test.low > 0)


def test_the_variance_of_seeds_is_unbiased_and_has_few_degrees_of_freedom() -> None:
    values = [50.0, 58.0, 66.0]
    one = estimate(58, [58.0] * 4000, 100, SHARE).over_seeds("runs", values)
    assert one.error == pytest.approx(np.std(values, ddof=1) / 3**0.5, rel=0.05)
    assert one.interval() == pytest.approx(stats.t.interval(0.95, 2, 58, stats.sem(values)), rel=0.1)
    again = estimate(1, [1.0] * 4000, 100, name="y").over_seeds("runs", values)
    assert np.array_equal(one.deviations, again.deviations), "the same seeds are drawn on every benchmark"
    assert (one - one).error == 0


@pytest.mark.parametrize("clusters", [5, 6, 40])
@pytest.mark.parametrize("value", [0.0, 2.0, 60.0, 100.0, -100.0])
def test_where_all_clusters_show_the_same_difference_the_binomial_bound_decides(value: float, clusters: int) -> None:
    test = paired(estimate(value, [value, value], clusters, (-100.0, 100.0)))
    assert test is not None
    assert (test.p < 0.05) is (test.low > 0 or test.high < 0)
    assert -100 <= test.low <= value <= test.high <= 100
    assert test.low < test.high
    if abs(value) == 100:
        assert test.p == pytest.approx(2 * 0.5**clusters)  # the sign test
    if value == 0:
        assert (test.p, test.high) == (1, pytest.approx(100 * (1 - 0.025 ** (1 / clusters))))


def test_a_function_of_all_at_once_has_the_fewest_clusters_and_degrees_of_freedom() -> None:
    one, other = estimate(3, [1, 5], 9), estimate(2, [4, 0], 7, name="y")
    first = jointly(lambda x: np.sign(x[0] - x[1]), [one, other], (-1.0, 1.0))
    assert (first.value, drawn(first), first.clusters) == (1, [-1, 1], 7)
    assert spread(first.rows).freedom == 6


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


def test_too_few_clusters_have_ranks_without_an_interval() -> None:
    places = standings([estimate(80, [80, 80], 1), estimate(60, [60, 60], 1)])
    assert places == [RankInterval(1), RankInterval(2)]
    assert (str(places[1]), places[1].columns()) == ("2", {"": 2, " low": None, " high": None, " tied": None})


def categories(**sizes: int) -> object:
    parts = {name: {f"{name}{i}": (float(i % 3 > 0), 1.0) for i in range(n)} for name, n in sizes.items()}
    return score({item: above for added in parts.values() for item, (above, _) in added.items()}, parts=parts)


def test_categories_are_resampled_apart() -> None:
    """A category of one of ten items never vanishes from a resample: the headline stays within its two halves."""
    [one] = resample([categories(a=30, b=FEWEST)], "x")
    assert {name: source.units for name, source in one.rows.items()} == {"x: a": 30, "x: b": FEWEST}
    assert one.interval() is not None
    [lone] = resample([categories(a=30, b=1)], "x")
    assert (lone.clusters, lone.interval()) == (1, None)


def test_a_category_that_is_all_wrong_is_not_certain() -> None:
    parts = {"a": {f"a{i}": (1.0, 1.0) for i in range(8)}, "b": {f"b{i}": (0.0, 1.0) for i in range(5)}}
    [one] = resample([score({"a0": 1}, parts=parts)], "x", 20_000)
    errors = {name: source.variance**0.5 for name, source in one.rows.items()}
    assert errors == pytest.approx({"x: a": 50 * (9 / 1000) ** 0.5, "x: b": 50 * (6 / 343) ** 0.5}, rel=0.03)


def test_parts_of_the_same_items_are_resampled_together() -> None:
    rows = {str(i): (float(i % 2), 1.0) for i in range(12)}
    parts = {"answers": rows, "figures": {item: one for item, one in rows.items() if int(item) < 6}}
    [stratum] = strata(cluster_sums([score(dict.fromkeys(rows, 1.0), parts=parts)]))
    assert (stratum.clusters.tolist(), stratum.fewest) == (list(range(12)), 6)


def test_means_of_rows_have_the_scale_they_are_given() -> None:
    rows = [str(i) for i in range(12)]
    [one] = resampled_means(rows, {}, np.array([[0.0] * 11 + [0.5]]), "x", POSITIVE)
    assert one.value == pytest.approx(0.5 / 12)
    low, high = one.interval() or (0, 0)
    assert low == 0 < high


def test_items_of_one_cluster_are_summed() -> None:
    clusters = {"a": "image 1", "b": "image 1"}
    sums = cluster_sums([score({"a": 1, "b": 0.5, "c": 1}, clusters=clusters)]).sums
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
