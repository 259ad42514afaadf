"""Many stored runs: what is computed together is equal to the last bit, and work grows with their number only."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from tests.helpers.records import dataset, run, score
from uniprune.results.comparison import RunComparison, comparable
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.statistics import Comparison, Estimate, holm, intervals, mean, paired, ratios, resample
from uniprune.results.statistics.differences import differences
from uniprune.results.statistics.estimate import combined


def made_up(models: int) -> list[RunRecord]:
    """Per model, an un-pruned run and three rivals, on two benchmarks."""
    rng = np.random.default_rng(0)
    return [
        run(method, {name: dataset((rng.random(20) < 0.6).tolist()) for name in "ab"}, weights=f"w{model}")
        for model in range(models)
        for method in ("none", "x", "y", "z")
    ]


def approximately(test: Comparison) -> Comparison:
    """A test whose numbers agree to the tenth digit."""
    return replace(test, **{name: pytest.approx(getattr(test, name), rel=1e-10) for name in ("low", "high", "p")})


@pytest.fixture
def estimates() -> list[Estimate]:
    """Means over two benchmarks, of which two are equal and one has several seeds."""
    rng = np.random.default_rng(1)
    each = [
        resample([score((rng.random(30) < 0.3 + 0.1 * r).astype(float).tolist()) for r in range(5)], name)
        for name in "ab"
    ]
    averages = [mean(pair) for pair in zip(*each, strict=True)]
    return [*averages[:4], averages[0], averages[4].over_seeds("seeds", [1.0, 2.0, 4.0])]


def test_differences_of_all_pairs_are_those_of_single_pairs(estimates: list[Estimate]) -> None:
    pairs = list(combinations(estimates, 2))
    for (one, other), found in zip(pairs, differences(estimates), strict=True):
        expected = one - other
        assert (found.value, found.scale) == (expected.value, expected.scale)
        for own, wanted in ((found.rows, expected.rows), (found.seeds, expected.seeds)):
            assert list(own) == list(wanted)
            for name, source in own.items():
                assert (source.draws == wanted[name].draws).all()
                assert source.variance == pytest.approx(wanted[name].variance, rel=1e-12)
                assert (source.units, source.freedom) == (wanted[name].units, wanted[name].freedom)
        own_test, wanted_test = paired(found), paired(expected)
        assert own_test and wanted_test
        assert own_test == approximately(wanted_test)


def test_runs_that_hardly_differ_have_the_variance_of_their_difference() -> None:
    """In the difference of two covariances, rounding alone would be a standard error of 1e-7."""
    credits = (np.random.default_rng(0).random(4000) < 0.7).astype(float)
    other = credits.copy()
    other[credits.argmax()] -= 1e-4
    estimates = resample([score(each.tolist()) for each in (credits, credits, other)], "a")
    same, near, _ = differences(estimates)
    assert same.error == 0
    assert near.error == (estimates[0] - estimates[2]).error > 0
    assert near.error == pytest.approx(1e-2 / 4000, rel=0.1)


def test_intervals_of_many_are_those_of_each(estimates: list[Estimate]) -> None:
    few, certain = resample([score([1.0, 0.0, 1.0])], "few")[0], resample([score([1.0] * 9)], "certain")[0]
    each = [*estimates, few, certain, estimates[0].certain(), estimates[1] / estimates[2], estimates[1] - estimates[2]]
    assert intervals(each) == [one.interval() for one in each]
    assert intervals(each, 0.8) == [one.interval(0.8) for one in each]
    assert intervals([]) == []


def test_ratios_of_many_are_those_of_each(estimates: list[Estimate]) -> None:
    small = [resample([score([float(i < n) for i in range(8)]) for n in (1, 4)], name) for name in "ab"]
    for base in (estimates[1], estimates[5], mean([one for one, _ in small])):  # a base of 0 in some resamples
        others = [*estimates, mean([two for _, two in small]), resample([score([1.0, 0.0] * 5)], "c")[0]]
        for one, found in zip(others, ratios(others, base), strict=True):
            expected = one / base
            assert (found.value, found.scale) == (expected.value, expected.scale)
            assert list(found.rows) == list(expected.rows)
            for name, source in found.rows.items():
                wanted = expected.rows[name]
                assert (source.draws == wanted.draws).all()
                assert source.variance == wanted.variance
                assert (source.units, source.freedom) == (wanted.units, wanted.freedom)


def test_variances_of_many_are_those_of_the_deviations(estimates: list[Estimate]) -> None:
    for one in [*resample([score([1.0, 0.0, 1.0, 1.0, 1.0, 0.0])], "a"), *ratios(estimates[:2], estimates[2])]:
        for source in one.rows.values():
            assert source.variance == pytest.approx(float(np.var(source.draws, ddof=1)), rel=1e-12)


def test_linear_sums_are_those_of_the_function(estimates: list[Estimate]) -> None:
    for some in (estimates[:3], estimates[3:], estimates * 2):
        found = mean(some)
        expected = combined(lambda x: sum(x[1:], start=x[0]) / len(x), some, (0.0, 100.0))
        assert found.value == pytest.approx(expected.value, rel=1e-14)
        for own, wanted in ((found.rows, expected.rows), (found.seeds, expected.seeds)):
            assert list(own) == list(wanted)
            for name, source in own.items():
                assert source.draws == pytest.approx(wanted[name].draws, abs=1e-12)
                assert source.variance == pytest.approx(wanted[name].variance, rel=1e-12)


def test_estimates_of_other_benchmarks_are_subtracted_one_by_one(estimates: list[Estimate]) -> None:
    other = replace(estimates[1], rows={"c": estimates[1].rows["a"]})
    [found] = differences([estimates[0], other])
    assert list(found.rows) == ["a", "b", "c"]
    assert found.error == (estimates[0] - other).error
    assert [*differences([])] == [*differences(estimates[:1])] == []


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_holm_is_that_of_statsmodels(count: int) -> None:
    values = np.random.default_rng(count).random(count).round(1) ** 3
    assert holm(values.tolist()) == (multipletests(values, method="holm")[1].tolist() if count else [])


def test_the_work_of_a_leaderboard_grows_with_its_runs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of settings and rows were made for every pair of runs."""
    dumps = json.dumps

    def hashed(models: int) -> int:
        records, calls = made_up(models), []

        def counted(value: object, **layout: Any) -> str:
            calls.append(value)
            return dumps(value, **layout)

        with monkeypatch.context() as patch:
            patch.setattr("uniprune.utils.hashing.json.dumps", counted)
            leaderboard(records)
        return len(calls)

    assert hashed(8) - hashed(4) <= hashed(4) + 8


def test_of_several_baselines_the_first_is_used() -> None:
    entries = {"a": dataset([1.0] * 10)}
    first, second = (run("none", entries, decoding=decoding) for decoding in ("greedy", "other"))
    comparison = RunComparison([run("x", entries), first, second])
    group, *unpruned = comparison.groups
    assert comparison.baseline(group) is unpruned[0]
    assert comparable(group, unpruned[0], "a")
    assert not comparable(group, unpruned[0], "b")
