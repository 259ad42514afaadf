"""Power and equivalence: against statsmodels by formula, and against the shipped paired test by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from tests.helpers.records import score
from uniprune.results.statistics import Estimate, detectable_by, detectable_on, equivalence, paired, resample
from uniprune.results.statistics.power import detectable
from uniprune.results.statistics.sources import student

Draw = Callable[[np.random.Generator], tuple[NDArray[np.float64], NDArray[np.float64]]]


def difference(one: NDArray[np.float64], other: NDArray[np.float64], resamples: int = 2000) -> Estimate:
    first, second = resample([score(one.tolist()), score(other.tolist())], "x", resamples)
    return first - second


def pairs(rows: int, discordance: float, gap: float) -> Draw:
    """Rows on which two methods differ with this probability, the first one right on so many more."""

    def draw(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        kind = rng.random(rows)
        first = kind < (discordance + gap) / 2
        second = (kind >= (discordance + gap) / 2) & (kind < discordance)
        both = (kind >= discordance) & (rng.random(rows) < 0.7)
        return (first | both) * 1.0, (second | both) * 1.0

    return draw


def frequency(draw: Draw, trials: int, seen: Callable[[Estimate], bool], seed: int) -> int:
    rng = np.random.default_rng(seed)
    return sum(seen(difference(*draw(rng), resamples=400)) for _ in range(trials))


def significant(found: Estimate) -> bool:
    test = paired(found)
    return test is not None and test.p < 0.05


def equal_within(margin: float) -> Callable[[Estimate], bool]:
    def shown(found: Estimate) -> bool:
        test = equivalence(found, margin)
        return test is not None and test.shown

    return shown


@pytest.mark.parametrize(
    ("rows", "level"), [(5, 0.05), (8, 0.05), (60, 0.05), (9000, 0.05), (60, 0.001), (500, 0.001), (200_000, 1e-4)]
)
def test_detectable_differences_are_those_of_statsmodels(rows: int, level: float) -> None:
    found = detectable(rows**-0.5, rows - 1, level)
    assert TTestPower().power(found, nobs=rows, alpha=level) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(("freedom", "level"), [(4, 0.05), (4, 0.001), (4, 1e-6), (30, 1e-4)])
def test_detectable_differences_are_shown_as_often_as_they_should_be(freedom: int, level: float) -> None:
    rng, size = np.random.default_rng(freedom), 200_000
    values = rng.standard_normal(size) + detectable(1.0, freedom, level)
    found = values / np.sqrt(rng.chisquare(freedom, size) / freedom) > student(level / 2, freedom)
    assert found.mean() == pytest.approx(0.8, abs=0.004)


def test_the_difference_that_rows_can_show_is_limited_by_the_rows_that_differ() -> None:
    assert detectable_by(4, 0.5) is None
    assert detectable_by(50, 0.02) is None, "a single row that differs shows nothing"
    assert detectable_by(1000, 0.2) == pytest.approx(3.97, abs=0.02)
    assert detectable_by(4000, 0.2) == pytest.approx(3.96 / 2, abs=0.02)


def test_what_a_measured_pair_can_show_with_more_rows() -> None:
    """500 rows of which a fifth differ say what 2000 such rows will show; nothing differs, nothing is known."""
    measured = difference(*pairs(500, 0.2, 0.0)(np.random.default_rng(1)))
    for times in (1, 4):
        expected = detectable_by(500 * times, 0.2)
        assert expected is not None
        assert detectable_on(measured, times) == pytest.approx(expected, rel=0.12)
    assert detectable_on(measured, 0.005) is None, "two rows"
    assert detectable_on(difference(np.ones(20), np.ones(20))) is None


def test_equivalence_is_that_of_statsmodels() -> None:
    one, other = pairs(800, 0.1, 0.0)(np.random.default_rng(3))
    found = difference(one, other)
    values = [margin for margin in np.linspace(0.5, 6, 40) if (t := equivalence(found, margin)) and t.shown]
    exact = [m for m in np.linspace(0.5, 6, 40) if ttost_paired(100 * one, 100 * other, -m, m)[0] < 0.05]
    assert 0 < len(exact) < 40
    assert abs(len(values) - len(exact)) <= 1


def test_the_same_everywhere_is_equal_only_on_enough_images() -> None:
    few, many = (difference(np.ones(rows), np.ones(rows)) for rows in (40, 400))
    assert [bool(test and test.shown) for test in (equivalence(few, 2), equivalence(many, 2))] == [False, True]
    assert equivalence(difference(np.ones(4), np.ones(4)), 50) is None


def test_a_detectable_difference_is_found_in_four_of_five_trials() -> None:
    gap, trials = detectable_by(200, 0.25), 60
    assert gap is not None
    found = frequency(pairs(200, 0.25, gap / 100), trials, significant, 5)
    assert binom.ppf(0.001, trials, 0.8) <= found <= binom.ppf(0.999, trials, 0.8)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("rows", "discordance"), [(50, 0.5), (200, 0.1), (500, 0.2)])
def test_simulated_power(rows: int, discordance: float) -> None:
    gap, trials = detectable_by(rows, discordance), 400
    assert gap is not None
    found = frequency(pairs(rows, discordance, gap / 100), trials, significant, rows)
    print(f"\n{rows} rows, {100 * discordance:g} % differ: {gap:.1f} points shown in {100 * found / trials:.1f} %")
    assert binom.ppf(0.001, trials, 0.76) <= found <= binom.ppf(0.999, trials, 0.84)


@pytest.mark.exhaustive
@pytest.mark.parametrize("rows", [60, 500])
def test_simulated_equivalence_at_the_margin(rows: int) -> None:
    """Methods that differ by just the margin are called equal in 5 % of the trials at most."""
    trials = 400
    found = frequency(pairs(rows, 0.2, 0.06), trials, equal_within(6), rows)
    print(f"\n{rows} rows, at the margin: {100 * found / trials:.1f} % called equal")
    assert found <= binom.ppf(0.999, trials, 0.05)
