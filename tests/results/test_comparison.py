"""Runs that are compared with each other, and what becomes of runs that lack something: on records made of numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.records import dataset, run, score, tokens
from uniprune.results.comparison import RunComparison, SeedGroup, comparable
from uniprune.results.fidelity import Fidelity
from uniprune.results.leaderboard import leaderboard
from uniprune.results.measurements import TokenLedger
from uniprune.results.records import RunRecord
from uniprune.results.statistics import RankInterval
from uniprune.results.table import MarkedCell

GOOD, HALF, BAD = [1.0] * 15 + [0.0] * 5, [1.0, 0.0] * 10, [0.0] * 20


def one(comparison: RunComparison, method: str) -> SeedGroup:
    [group] = [group for group in comparison.groups if group.setup.method.name == method]
    return group


def row(records: list[RunRecord], method: str) -> dict[str, object]:
    [found] = [row for row in leaderboard(records).rows if row["method"] == method]
    return dict(found)


def test_relatives_are_means_of_ratios_without_benchmarks_on_which_the_baseline_scores_zero() -> None:
    base = run("none", {"x": dataset(GOOD), "y": dataset(HALF), "z": dataset(BAD)})
    pruned = run("a", {"x": dataset(HALF), "y": dataset(HALF), "z": dataset(HALF)})
    comparison = RunComparison([base, pruned])
    relative = comparison.relative(one(comparison, "a"), ["x", "y", "z"])
    assert relative is not None
    assert relative.value == pytest.approx((100 * 50 / 75 + 100) / 2)
    assert comparison.relative(one(comparison, "a"), ["z"]) is None
    assert comparison.relative(one(comparison, "none"), ["x"]).value == 100  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "other",
    [{"data": "e"}, {"prompts": "q"}, {"score": score(HALF, judge="model")}, {"score": score(HALF, scorer="kit 2")},
     {"score": None}],
    ids=["data", "prompts", "judge", "scorer", "not scored"],
)  # fmt: skip
def test_scores_of_other_questions_judges_or_scorers_are_not_compared(other: dict[str, object]) -> None:
    base, pruned = run("none", {"x": dataset(GOOD, **other)}), run("a", {"x": dataset(HALF)})
    comparison = RunComparison([base, pruned])
    assert not comparable(one(comparison, "a"), one(comparison, "none"), "x")
    assert comparison.relative(one(comparison, "a"), ["x"]) is None
    assert comparison.score(one(comparison, "a"), "x").value == 50


def test_versions_of_a_scorer_that_differ_are_named_with_their_runs() -> None:
    scores = [score(HALF, scorer=f"kit {version}") for version in (1, 2)]
    records = [run(name, {"x": dataset(HALF, score=one)}) for name, one in zip("ab", scores, strict=True)]
    [note] = [note for note in leaderboard(records).notes if "versions of the scorer differ" in note]
    assert note.startswith("x: ") and "kit 1 scored m a" in note and "; kit 2 scored m b" in note
    assert not [note for note in leaderboard(records[:1] * 2).notes if "scorer" in note]
    assert row(records, "a")["rank"] is None, "it has no rival"
    alike = [run(name, {"x": dataset(HALF, score=scores[0])}) for name in "ab"]
    assert row(alike, "a")["rank"] == RankInterval(1, 1, 2, tied=True)


@pytest.mark.parametrize(
    "change",
    [{"weights": "v"}, {"processor": {"class": "Q"}}, {"prompts": "family"}, {"max_new_tokens": 4}, {"limit": 20},
     {"dtype": "float16"}, {"attention": "eager"}, {"device": "cuda"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_runs_of_other_settings_are_no_baseline_and_no_rivals(change: dict[str, object]) -> None:
    records = [run("none", {"x": dataset(GOOD)}, **change), run("b", {"x": dataset(GOOD)}, **change)]
    records += [run("a", {"x": dataset(BAD)}), run("c", {"x": dataset(BAD)})]
    comparison = RunComparison(records)
    assert comparison.baseline(one(comparison, "a")) is None
    assert comparison.baseline(one(comparison, "b")) == one(comparison, "none")
    assert row(records, "a")["rank"] == RankInterval(1, 1, 2, tied=True)
    assert row(records, "b")["rank"] is None


@pytest.mark.parametrize("change", [{"ratio": 0.2}, {"protocol": "average"}], ids=["ratio", "protocol"])
def test_runs_of_other_budgets_have_the_same_baseline_but_are_no_rivals(change: dict[str, object]) -> None:
    for budget, ranks in ((16, [2, 1]), (18, [None, None])):
        records = [run("none", {"x": dataset(GOOD)}), run("a", {"x": dataset(BAD)})]
        records.append(run("b", {"x": dataset(GOOD, ledger=tokens(budget))}, **change))  # type: ignore[arg-type]
        comparison = RunComparison(records)
        assert comparison.baseline(one(comparison, "b")) == one(comparison, "none")
        found = [row(records, name)["rank"] for name in "ab"]
        assert [rank and rank.rank for rank in found] == ranks  # type: ignore[union-attr]


def test_a_run_that_lacks_a_benchmark_has_neither_average_nor_rank() -> None:
    records = [run("a", {"x": dataset(GOOD), "y": dataset(HALF)}), run("b", {"x": dataset(GOOD)})]
    complete, part = row(records, "a"), row(records, "b")
    assert str(complete["average"]) == "62.5"
    assert str(part["x"]) == "75.0"
    assert (part["average"], part["rank"]) == (None, None)
    assert row(records[1:], "b")["average"] is not None
    assert any(note.startswith("No average") for note in leaderboard(records).notes)


def test_a_benchmark_that_a_seed_lacks_is_not_shown_for_the_group() -> None:
    full = run("a", {"x": dataset(GOOD), "y": dataset(GOOD)})
    records = [full, run("a", {"x": dataset(HALF), "y": dataset(rows=7)}, seed=1)]
    board = leaderboard(records)
    assert (str(board.rows[0]["x"]), board.rows[0].get("y")) == ("62.5 ± 17.7", None)
    assert any("y: 7 of 7 rows answered, not scored yet" in note for note in board.notes)


def ledger(average: float, **fields: bool) -> TokenLedger:
    return TokenLedger(layers=[average], average=average, requested=average, **{"flagged": False} | fields)


def test_tokens_are_means_over_rows_and_one_mark_marks_the_row() -> None:
    x = dataset([1.0] * 30, ledger=ledger(10))
    records = [run("a", {"x": x, "y": dataset([1.0] * 10, ledger=ledger(20, flagged=True))})]
    assert row(records, "a")["visual tokens"] == MarkedCell(12.5, "!")
    records = [run("a", {"x": x, "y": dataset([1.0] * 10, ledger=ledger(20, adaptive=True))})]
    assert row(records, "a")["visual tokens"] == MarkedCell(12.5, "~")


def test_the_divergence_is_known_only_if_it_is_known_of_every_benchmark() -> None:
    records = [run(name, {"x": dataset(GOOD), "y": dataset(GOOD)}) for name in ("none", "a")]

    def compare(base: RunRecord, other: RunRecord, name: str) -> Fidelity:
        same = [int(base == other or name == "x")] * 20
        return Fidelity([str(i) for i in range(20)], same, [0.5] * 20 if name in known else None)

    for known in (("x", "y"), ("x",), ()):
        comparison = RunComparison(records, compare)
        found = comparison.fidelity(one(comparison, "a"))
        assert found is not None
        assert found.agreement.value == 50  # all of x, none of y
        assert (found.kl is not None) is (len(known) == 2)
    assert RunComparison(records).fidelity(one(RunComparison(records), "a")) is None


def test_a_headline_outside_its_items_moves_the_interval() -> None:
    plain = run("a", {"x": dataset(GOOD)})
    odd = run("b", {"x": dataset(GOOD, score=score(GOOD, value=40, interval_of="mean credit"))})
    comparison = RunComparison([plain, odd])
    low, high = comparison.score(one(comparison, "a"), "x").interval() or (0, 0)
    assert comparison.score(one(comparison, "b"), "x").interval() == pytest.approx((low - 35, high - 35))
    assert one(comparison, "b").credit_interval("x")
    assert not one(comparison, "a").credit_interval("x")


def test_differences_are_paired_item_by_item() -> None:
    """Two runs that are right on the same items differ by nothing, in every resample."""
    records = [run("a", {"x": dataset(HALF)}), run("b", {"x": dataset(HALF)}), run("c", {"x": dataset(HALF[::-1])})]
    comparison = RunComparison(records)
    a, b, c = (comparison.score(one(comparison, name), "x") for name in "abc")
    assert not np.any((a - b).deviations)
    assert (a - c).error > 1.5 * a.error
