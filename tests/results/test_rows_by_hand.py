"""Groups of runs, baselines, ranks and rows of a leaderboard, from records written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.records import BASELINE, dataset, run, score, timed, tokens
from uniprune.results.comparison import RunComparison, comparable, groups
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.table import MarkedCell, ScoreCell

RIGHT = {str(i): float(i < 30) for i in range(40)}
"""30 of 40 items right."""
WORSE = {str(i): float(i < 20) for i in range(40)}


def small(credits: dict[str, float], **fields: object) -> dict[str, object]:
    return {"small": dataset(score(credits, **fields))}


def cell(board: object, method: str, column: str) -> object:
    [found] = [row for row in board.rows if row["method"] == method]  # type: ignore[attr-defined]
    return found[column]


def test_runs_that_differ_in_their_seed_are_one_group() -> None:
    seeds = [run("random", small(RIGHT), seed=seed) for seed in (1, 0)]
    found = groups([*seeds, run("random", small(RIGHT), ratio=0.25)])
    assert [[one.setup.seed for one in group.runs] for group in found] == [[0, 1], [0]]


def test_the_chance_of_seeds_is_added_to_that_of_items() -> None:
    """Two seeds 100 points apart say nothing of the mean: of one degree of freedom, the interval is the whole scale."""
    every = {str(i): 1.0 for i in range(40)}
    seeds = [run("random", small(credits), seed=s) for s, credits in enumerate((every, dict.fromkeys(every, 0.0)))]
    comparison = RunComparison(seeds)
    score = comparison.score(comparison.groups[0], "small")
    [source] = score.seeds.values()
    assert (score.value, source.units, score.interval()) == (50, 2, (0, 100))
    assert source.variance**0.5 == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("change", [{"weights": "x"}, {"limit": 5}, {"dtype": "float16"}, {"prompts": "family"}])
def test_the_baseline_has_the_same_settings(change: dict[str, object]) -> None:
    mine, other = run(BASELINE, small(RIGHT)), run(BASELINE, small(RIGHT), **change)
    comparison = RunComparison([other, run("m", small(WORSE)), mine])
    baseline = comparison.baseline(comparison.groups[1])
    assert baseline is not None and baseline.runs == (mine,)
    assert RunComparison([other, run("m", small(WORSE))]).relative(comparison.groups[1], ["small"]) is None


@pytest.mark.parametrize("fields", [{"data": "other"}, {"prompts": "other"}])
def test_other_rows_are_no_pair(fields: dict[str, str]) -> None:
    runs = [run(BASELINE, {"small": dataset(score(RIGHT), **fields)}), run("m", small(WORSE))]
    comparison = RunComparison(runs)
    one, other = comparison.groups
    assert not comparable(one, other, "small")
    assert comparison.relative(other, ["small"]) is None


def test_another_judge_is_no_pair() -> None:
    comparison = RunComparison([run(BASELINE, small(RIGHT, judge="gpt")), run("m", small(WORSE))])
    assert not comparable(*comparison.groups, "small")


def test_relative_is_the_mean_of_ratios() -> None:
    def two(first: dict[str, float], second: dict[str, float]) -> dict[str, object]:
        return {"a": dataset(score(first)), "b": dataset(score(second))}

    comparison = RunComparison([run(BASELINE, two(RIGHT, WORSE)), run("m", two(WORSE, WORSE))])
    found = comparison.relative(comparison.groups[1], ["a", "b"])
    assert found is not None and found.value == pytest.approx((100 * 20 / 30 + 100) / 2)


def test_the_interval_of_a_mean_credit_is_moved_to_the_headline() -> None:
    comparison = RunComparison([run("m", small(RIGHT, value=10.0, interval_of="mean credit"))])
    found = comparison.score(comparison.groups[0], "small")
    assert found.value == 10
    assert float(np.mean(found.deviations)) == pytest.approx(0, abs=1)


def rivals() -> list[RunRecord]:
    return [
        run(BASELINE, small(RIGHT)), run("a", small(RIGHT), ratio=0.5), run("b", small(WORSE), ratio=0.5),
        run("c", {"small": dataset(score(WORSE), ledger=tokens(8))}, ratio=0.5),
        run("d", small(WORSE), ratio=0.25, protocol="average"), run("e", small(RIGHT), dtype="float16"),
    ]  # fmt: skip


def test_ranks_are_among_equal_budgets_and_settings() -> None:
    board = leaderboard(rivals())
    ranks = {row["method"]: row["rank"] and (row["rank"].rank, row["rank"].low, row["rank"].high) for row in board.rows}  # type: ignore[union-attr]
    assert ranks == {BASELINE: None, "a": (1, 1, 1), "b": (2, 2, 3), "c": None, "d": (2, 2, 3), "e": None}


def test_what_no_test_tells_from_the_first_is_tied_with_it() -> None:
    nearly = RIGHT | {"29": 0.0}
    board = leaderboard([run("a", small(RIGHT)), run("b", small(nearly)), run("c", small(WORSE))])
    assert {row["method"]: row["rank"].tied for row in board.rows} == {"a": True, "b": True, "c": False}  # type: ignore[union-attr]


def test_a_run_that_lacks_a_benchmark_has_no_average() -> None:
    whole = {"a": dataset(score(RIGHT)), "b": dataset(score(WORSE))}
    board = leaderboard([run("whole", whole), run("part", {"a": dataset(score(RIGHT))})])
    average = cell(board, "whole", "average")
    assert isinstance(average, ScoreCell) and average.value == 62.5
    assert cell(board, "part", "average") is None
    assert cell(board, "part", "rank") is None


def test_means_over_benchmarks_count_rows() -> None:
    parts = {
        "a": dataset(score(RIGHT), answered=10, ledger=tokens(16.0, flagged=True), timing=timed(0.1, rows=10)),
        "b": dataset(score(RIGHT), answered=30, ledger=tokens(32.0, adaptive=True), timing=timed(0.3, rows=30)),
    }
    board = leaderboard([run("m", parts)])
    assert cell(board, "m", "visual tokens") == MarkedCell(28.0, "!~")
    assert cell(board, "m", "total ms") == pytest.approx(250)
