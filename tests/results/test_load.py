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
from uniprune.results.statistics import Estimate, comparisons, holm, mean, resample
from uniprune.results.statistics.differences import differences


def made_up(models: int) -> list[RunRecord]:
    """Per model, an un-pruned run and three rivals, on two benchmarks."""
    rng = np.random.default_rng(0)
    return [
        run(method, {name: dataset((rng.random(20) < 0.6).tolist()) for name in "ab"}, weights=f"w{model}")
        for model in range(models)
        for method in ("none", "x", "y", "z")
    ]


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
                assert source.variance == wanted[name].variance
                assert (source.units, source.freedom) == (wanted[name].units, wanted[name].freedom)
        assert comparisons.paired(found) == comparisons.paired(expected)


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
