"""Intervals hold what they promise, tests keep their level: seen on simulated benchmarks whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, ttest_rel

from uniprune.evaluation.dataset import Score
from uniprune.results.statistics import Estimate, holm, mean, paired, resample, standings
from uniprune.results.statistics.headline import headline

pytestmark = pytest.mark.end_to_end

TRIALS = 400


def credits(values: np.ndarray, clusters: np.ndarray | None = None) -> Score:
    per_item = {str(i): float(value) for i, value in enumerate(values)}
    shared = {} if clusters is None else {str(i): f"picture {c}" for i, c in enumerate(clusters)}
    return Score(100 * float(np.mean(values)), "accuracy", len(values), per_item=per_item, clusters=shared)


def alone(rng: np.random.Generator) -> tuple[Score, float]:
    """150 items, 70 % right."""
    return credits((rng.random(150) < 0.7) * 1.0), 70.0


def pictures(rng: np.random.Generator, told: bool = True) -> tuple[Score, float]:
    """60 pictures with one to six questions each; some pictures are hard: a Beta(1.4, 0.6) share of them is right."""
    clusters = np.repeat(np.arange(60), rng.integers(1, 7, 60))
    right = rng.random(len(clusters)) < rng.beta(1.4, 0.6, 60)[clusters]
    return credits(right * 1.0, clusters if told else None), 70.0


def f1(rng: np.random.Generator) -> tuple[Score, float]:
    """80 pictures with two yes/no questions; 80 % of the yes and 60 % of the no are found: F1 is 1.6 / (1.6 + 0.6)."""
    picture = np.repeat(np.arange(80), 2)
    yes = rng.random(160) < 0.5
    said = np.where(yes, rng.random(160) < 0.8, rng.random(160) < 0.4)
    part = {str(i): (2.0 * (y and s), float(y) + float(s)) for i, (y, s) in enumerate(zip(yes, said, strict=True))}
    plain = credits((yes == said) * 1.0, picture)
    return Score(0, "F1", 160, per_item=plain.per_item, clusters=plain.clusters, parts={"F1": part}), 160 / 2.2


def strata(rng: np.random.Generator) -> tuple[Score, float]:
    """A mean over three categories of different size and difficulty."""
    parts = {
        name: {f"{name} {i}": (float(rng.random() < chance), 1.0) for i in range(items)}
        for name, items, chance in (("a", 40, 0.9), ("b", 80, 0.5), ("c", 30, 0.4))
    }
    per_item = {item: above for added in parts.values() for item, (above, _) in added.items()}
    return Score(0, "mean of categories", 150, per_item=per_item, parts=parts), 60.0


def coverage(simulate: Callable[[np.random.Generator], tuple[Score, float]]) -> int:
    """In how many of `TRIALS` simulated benchmarks the 95 % interval holds the truth."""
    held = 0
    for trial in range(TRIALS):
        score, truth = simulate(np.random.default_rng([7, trial]))
        [estimate] = resample([score], f"trial {trial}", resamples=400)
        low, high = estimate.interval() or (0, 0)
        held += low <= truth <= high
    return held


@pytest.mark.parametrize("simulate", [alone, pictures, f1, strata])
def test_intervals_hold_the_truth_as_often_as_they_say(simulate: Callable[..., tuple[Score, float]]) -> None:
    """Between 93 % (percentile intervals are a little narrow at this size) and 95 %, give or take binomial error."""
    held = coverage(simulate)
    assert binom.ppf(0.001, TRIALS, 0.93) <= held <= binom.ppf(0.999, TRIALS, 0.95)


def test_intervals_that_overlook_shared_pictures_are_too_narrow() -> None:
    """The simulation would notice: without clusters the same benchmark misses the truth far too often."""
    assert coverage(lambda rng: pictures(rng, told=False)) < binom.ppf(0.001, TRIALS, 0.93)


def test_all_right_is_no_proof_of_a_hundred() -> None:
    [perfect] = resample([credits(np.ones(10))], "x")
    [none] = resample([credits(np.zeros(10))], "x")
    [paired_up] = resample([credits(np.ones(10), np.arange(10) // 2)], "x")
    assert perfect.interval() == (pytest.approx(69.15, abs=0.01), 100)
    assert none.interval() == (0, pytest.approx(30.85, abs=0.01))
    assert paired_up.interval() == (pytest.approx(47.82, abs=0.01), 100)  # five pictures
    [elsewhere] = resample([credits(np.ones(10))], "y")
    assert mean([perfect, perfect]).interval() == perfect.interval()  # two methods on the same items
    both = mean([perfect, elsewhere])
    assert both.interval() == (pytest.approx(83.16, abs=0.01), 100)


def test_one_picture_or_no_items_give_no_interval() -> None:
    [one] = resample([credits(np.array([1.0, 0.0]), np.zeros(2))], "x")
    [nothing] = resample([Score(50, "x", 0)], "x")
    assert (one.value, one.interval()) == (50, None)
    assert nothing.interval() is None
    assert paired(one - nothing) is None


def test_estimates_repeat_and_pair_and_benchmarks_are_independent() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(100) < 0.6) * 1.0
    worse = right * (rng.random(100) < 0.9)
    one, same, other = resample([credits(right), credits(right), credits(worse)], "x")
    assert np.array_equal(one.deviations, resample([credits(right)], "x")[0].deviations)
    assert (one - same).error == 0
    assert (one - other).error < 0.7 * np.hypot(one.error, other.error)
    [elsewhere] = resample([credits(right)], "y")
    assert abs(np.corrcoef(one.deviations, elsewhere.deviations)[0, 1]) < 0.1
    assert mean([one, elsewhere]).error == pytest.approx(one.error / 2**0.5, rel=0.1)
    assert (other / one).value == pytest.approx(100 * worse.mean() / right.mean())


def test_holm_is_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@pytest.mark.parametrize("gain", [0.0, 0.15])
def test_paired_tests_keep_their_level_and_find_what_is_there(gain: float) -> None:
    found = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([11, trial])
        clusters, hard = np.repeat(np.arange(50), 3), rng.beta(2, 1, 50)
        answers = [
            credits((rng.random(150) < np.clip(hard[clusters] + shift, 0, 1)) * 1.0, clusters) for shift in (0, gain)
        ]
        one, other = resample(answers, f"trial {trial}", resamples=400)
        test = paired(other - one)
        found += test is not None and test.p < 0.05
    if gain:
        assert found > 0.7 * TRIALS
    else:
        assert found <= binom.ppf(0.999, TRIALS, 0.05)


def test_parts_without_items_are_left_out_of_the_headline() -> None:
    sums = np.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert headline(sums).tolist() == [62.5, 50.0, 0.0]


def test_of_items_that_stand_alone_the_paired_test_is_the_t_test() -> None:
    """Of few, where the bootstrap's standard error would be too small by the square root of (n - 1) / n."""
    first, second = np.array([1.0, 1.0, 0.0, 1.0, 0.5, 0.9]), np.array([0.0, 0.8, 0.1, 0.2, 0.5, 0.4])
    one, other = resample([credits(first), credits(second)], "x", resamples=20_000)
    test, expected = paired(one - other), ttest_rel(first, second)
    low, high = expected.confidence_interval(0.95)
    assert test is not None
    assert test.p == pytest.approx(expected.pvalue, rel=0.03)
    assert test.high - test.low == pytest.approx(100 * (high - low), rel=0.03)


def test_of_a_mean_without_spread_all_clusters_count() -> None:
    five = [resample([credits(np.ones(5))], name)[0] for name in "abc"]
    assert [mean(five[:n]).pooled for n in (1, 2, 3)] == [5, 10, 15]
    [many] = resample([credits(np.ones(93))], "x")
    assert mean([many]).pooled == 93
    assert mean([five[0], many]).pooled == 18  # little more than twice the smaller one's


def estimates(rng: np.random.Generator, chances: list[float], name: str) -> list[Estimate]:
    return resample([credits((rng.random(100) < chance) * 1.0) for chance in chances], name, resamples=300)


def test_rank_intervals_hold_all_true_ranks_at_once() -> None:
    """Of six equal methods every rank is true: an interval short of 1 to 6 is false, allowed 5 % of the time."""
    false, trials = 0, 200
    for trial in range(trials):
        places = standings(estimates(np.random.default_rng([13, trial]), [0.6] * 6, f"trial {trial}"))
        false += any((place.low, place.high) != (1, 6) for place in places)
        assert sorted(place.rank for place in places)[0] == 1
    assert false <= binom.ppf(0.999, trials, 0.05)


def test_ranks_of_clearly_different_methods() -> None:
    places = standings(estimates(np.random.default_rng(0), [0.9, 0.88, 0.3], "x"))
    assert [(place.low, place.high, place.tied) for place in places] == [(1, 2, True), (1, 2, True), (3, 3, False)]
    assert str(places[2]) == "3 [3–3]"
    assert standings([]) == []
