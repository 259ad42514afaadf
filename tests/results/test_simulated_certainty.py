"""Frequencies with which intervals hold the truth and equal methods are called different, where runs are few.

Figures stand in docs/statistics.md.
`TRIALS` is raised by hand for the figures in the docs; every figure is printed (`pytest -s`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binom

from tests.helpers.records import dataset, run, score
from uniprune.results.comparison import RunComparison
from uniprune.results.records import ScoreRecord
from uniprune.results.statistics import FEWEST, Estimate, mean, paired, resample

pytestmark = pytest.mark.exhaustive

TRIALS = 100
RESAMPLES = 400


class Trial(NamedTuple):
    """An estimate, its true value, and a difference of two equal methods."""

    estimate: Estimate
    truth: float
    difference: Estimate


def simulated(trials: Iterator[Trial], what: str) -> tuple[int, int]:
    """In how many trials the interval holds the truth, and in how many equal methods are called different."""
    held = different = 0
    for trial in trials:
        interval, test = trial.estimate.interval(), paired(trial.difference)
        assert interval is not None and test is not None, "too few clusters"
        held += interval[0] <= trial.truth <= interval[1]
        different += test.p < 0.05
        assert (test.p < 0.05) is (test.low > 0 or test.high < 0), "interval and p contradict each other"
    print(f"\n{what}: {100 * held / TRIALS:.1f} % held, {100 * different / TRIALS:.1f} % called different")
    return held, different


def at_least(share: float) -> float:
    """The fewest successes of `TRIALS` that are compatible with a share."""
    return float(binom.ppf(0.001, TRIALS, share))


def at_most(share: float) -> float:
    return float(binom.ppf(0.999, TRIALS, share))


def seeds_of_equal_methods(seeds: int, rows: int, scatter: float) -> Iterator[Trial]:
    """Two methods that choose at random: 70 % right, scattered over seeds by so many points."""
    for trial in range(TRIALS):
        rng = np.random.default_rng([17, seeds, rows, trial])
        hard, records = rng.random(rows), []
        for method in ("a", "b"):
            for seed in range(seeds):
                own = np.where(rng.random(rows) < 0.2, rng.random(rows), hard)
                right = own < 0.7 + rng.normal(0, scatter / 100)
                records.append(run(method, {f"x{trial}": dataset(right * 1.0)}, seed=seed))
        comparison = RunComparison(records)
        one, other = (comparison.score(group, f"x{trial}") for group in comparison.groups)
        yield Trial(one, 70.0, one - other)


@pytest.mark.parametrize(("rows", "scatter"), [(1000, 5.0), (100, 0.5)])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_mean_over_few_seeds_is_as_sure_as_it_says(seeds: int, rows: int, scatter: float) -> None:
    what = f"{seeds} seeds, {rows} rows, seeds scattered by {scatter} points"
    held, different = simulated(seeds_of_equal_methods(seeds, rows, scatter), what)
    assert held >= at_least(0.94)
    assert different <= at_most(0.06)


def category_means(layout: Sequence[tuple[int, float]]) -> Iterator[Trial]:
    """Two equal methods on categories of so many rows, with so many of them right."""
    for trial in range(TRIALS):
        rng = np.random.default_rng([19, trial, *(rows for rows, _ in layout)])
        scores = [_categories(rng, layout) for _ in range(2)]
        one, other = resample(scores, f"trial {trial}", RESAMPLES)
        yield Trial(one, 100 * float(np.mean([share for _, share in layout])), one - other)


def _categories(rng: np.random.Generator, layout: Sequence[tuple[int, float]]) -> ScoreRecord:
    parts = {
        str(c): {f"{c} {i}": (float(rng.random() < share), 1.0) for i in range(rows)}
        for c, (rows, share) in enumerate(layout)
    }
    return score({item: credit for part in parts.values() for item, (credit, _) in part.items()}, parts=parts)


@pytest.mark.parametrize(
    "layout",
    [[(20, 0.95)] * 3 + [(FEWEST, 0.25)], [(100, 0.9), (FEWEST, 0.25)], [(14, 0.95)] * 4, [(FEWEST, 0.7)] * 10],
    ids=["3 x 20 + 5", "100 + 5", "4 x 14", "10 x 5"],
)
def test_a_mean_of_small_categories_is_as_sure_as_it_says(layout: Sequence[tuple[int, float]]) -> None:
    held, different = simulated(category_means(layout), f"categories of {[rows for rows, _ in layout]} rows")
    assert held >= at_least(0.94)
    assert different <= at_most(0.06)


def benchmark_means(benchmarks: int, rows: int, share: float) -> Iterator[Trial]:
    """Two equal methods on some benchmarks, with this share of rows right."""
    for trial in range(TRIALS):
        rng = np.random.default_rng([23, benchmarks, rows, trial])
        first, second = [], []
        for name in range(benchmarks):
            scores = [score((rng.random(rows) < share) * 1.0) for _ in range(2)]
            for side, one in zip((first, second), resample(scores, f"{trial} {name}", RESAMPLES), strict=True):
                side.append(one)
        yield Trial(mean(first), 100 * share, mean(first) - mean(second))


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize(
    ("benchmarks", "rows"), [(1, FEWEST), (1, 10), (1, 20), (1, 100), (3, FEWEST), (10, FEWEST), (10, 10)]
)
def test_a_mean_of_small_benchmarks_is_as_sure_as_it_says(benchmarks: int, rows: int, share: float) -> None:
    held, different = simulated(
        benchmark_means(benchmarks, rows, share), f"{benchmarks} benchmarks of {rows} rows, {100 * share:g} % right"
    )
    assert held >= at_least(0.93)
    assert different <= at_most(0.06)


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("images", [FEWEST, 25, 60])
def test_rows_that_share_images_are_as_sure_as_they_say(images: int, share: float) -> None:
    """Four rows an image, some images hard."""

    def trials() -> Iterator[Trial]:
        for trial in range(TRIALS):
            rng = np.random.default_rng([29, images, trial])
            own, chance = np.repeat(np.arange(images), 4), rng.beta(2 * share, 2 * (1 - share), images)
            clusters = {str(i): str(image) for i, image in enumerate(own)}
            scores = [score((rng.random(len(own)) < chance[own]) * 1.0, clusters=clusters) for _ in range(2)]
            one, other = resample(scores, f"trial {trial}", RESAMPLES)
            yield Trial(one, 100 * share, one - other)

    held, different = simulated(trials(), f"{images} images of 4 rows, {100 * share:g} % right")
    assert held >= at_least(0.92)
    assert different <= at_most(0.06)
