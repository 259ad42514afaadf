"""Accuracy at equal FLOPs is read off between measurements, never beyond them, with the interval of the line."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from tests.helpers.records import dataset, run, tokens
from uniprune.results.equal_flops import Point, equal_flops, read_off
from uniprune.results.leaderboard import leaderboard
from uniprune.results.measurements import Flops
from uniprune.results.records import RunRecord
from uniprune.results.statistics import Estimate
from uniprune.results.table import ResultTable, ScoreCell


def spent(method: str, ratio: float, flops: float | None, right: int, **fields: object) -> RunRecord:
    """A run of 40 rows, the first so many right, at so many TFLOPs."""
    counted = None if flops is None else Flops(vision=1e12, projector=0, llm=(flops - 1) * 1e12)
    ledger = tokens(100 * ratio, flops=counted)
    credits = [1.0] * right + [0.0] * (40 - right)
    return run(method, {"x": dataset(credits, ledger=ledger)}, ratio=ratio, **fields)  # type: ignore[arg-type]


def records() -> list[RunRecord]:
    return [
        spent("none", 1.0, 10, 40),
        spent("early", 0.1, 2, 10), spent("early", 0.3, 4, 20), spent("early", 0.5, 6, 30),
        spent("late", 0.1, 3, 12), spent("late", 0.3, 5.03, 32),
        spent("dear", 0.1, 8, 36), spent("dear", 0.3, 9, 38),
        spent("old", 0.1, None, 20),
    ]  # fmt: skip


def view(runs: list[RunRecord]) -> ResultTable:
    return leaderboard(runs).equal_flops()


def test_scores_are_read_off_between_neighbours_and_nowhere_else() -> None:
    found = {(round(row["TFLOPs"], 2), row["method"]): row for row in view(records()).rows}  # type: ignore[arg-type]
    values = {place: row["average"].value for place, row in found.items()}  # type: ignore[union-attr]
    assert values == pytest.approx({
        (5.03, "early"): 50 + 25 * 1.03 / 2, (5.03, "late"): 80.0,
        (4.0, "early"): 50.0, (4.0, "late"): 30 + 50 / 2.03,
        (3.0, "early"): 37.5, (3.0, "late"): 30.0,
    })  # fmt: skip
    assert found[3.0, "early"]["from"] == "between ratio 0.1 (2) and ratio 0.3 (4)"
    assert found[3.0, "late"]["from"] == "ratio 0.1 (3)"


def test_what_cannot_be_read_off_is_named() -> None:
    notes = view(records()).notes[1:]
    assert notes == (
        "m: dear (8 to 9 TFLOPs) is not read off at 3, 4, 5.03: never beyond what was run.",
        "m: no operations were counted of old.",
    )
    lone = view([spent("a", 0.1, 2, 10), spent("b", 0.1, 3, 10), spent("b", 0.3, 4, 10)])
    assert (lone.rows, lone.notes) == (
        [],
        ("m: no two methods have a cost in common (a (2 TFLOPs); b (3 to 4 TFLOPs)).",),
    )


def test_the_order_of_runs_changes_nothing() -> None:
    table = view(records())
    for seed in range(5):
        mixed = view([records()[i] for i in np.random.default_rng(seed).permutation(len(records()))])
        assert mixed.csv() == table.csv()
        assert sorted(mixed.notes) == sorted(table.notes)


def test_only_runs_on_the_same_questions_settings_and_code_are_one_curve() -> None:
    base = [spent("a", 0.1, 2, 10), spent("b", 0.1, 2, 10), spent("b", 0.3, 4, 10)]
    for changed in (
        spent("a", 0.3, 6, 30, dtype="float16"),
        spent("a", 0.3, 6, 30).model_copy(update={"datasets": {"y": spent("a", 0.3, 6, 30).datasets["x"]}}),
    ):
        assert {(row["TFLOPs"], row["method"]) for row in view([*base, changed]).rows} == {(2, "a"), (2, "b")}
    other = spent("a", 0.3, 6, 30)
    method = other.setup.method.model_copy(update={"code": "d"})
    setup = other.setup.model_copy(update={"method": method})
    found = view([*base, other.model_copy(update={"setup": setup, "identity": setup.identity()})])
    assert {row["method"] for row in found.rows} == {"a (code c)", "b"}
    assert "a (code d) (6 TFLOPs) is not read off at 2" in found.notes[1]


def point(flops: float, value: float) -> Point:
    return Point(flops, Estimate(value, {}, scale=(0, 100)), f"ratio {flops:g}")


@pytest.mark.parametrize(
    ("flops", "value"), [(1.95, None), (1.97, 10), (2.0, 10), (2.03, 10), (2.5, 15), (3.0, 20), (3.05, 20), (3.1, None)]
)
def test_a_measurement_counts_within_two_percent_and_nothing_is_extrapolated(flops: float, value: float | None) -> None:
    found = read_off([point(3, 20), point(2, 10)], flops)
    assert (found and found.score.value) == pytest.approx(value)


def test_the_interval_is_that_of_the_weighted_mean_of_both_ends() -> None:
    table = view(records())
    [between] = [row["average"] for row in table.rows if row["TFLOPs"] == 3 and row["method"] == "early"]
    [measured] = [row["average"] for row in table.rows if row["TFLOPs"] == 4 and row["method"] == "early"]
    assert isinstance(between, ScoreCell) and isinstance(measured, ScoreCell)
    assert between.interval and measured.interval
    assert between.interval[0] < between.value < between.interval[1]
    # Of the forty rows ten are right at both ends and ten at one: the variance of (c + d) / 2.
    credits = np.array([1.0] * 10 + [0.5] * 10 + [0.0] * 20)
    wide = 2 * 100 * 2.0227 * credits.std(ddof=1) / 40**0.5
    assert between.interval[1] - between.interval[0] == pytest.approx(wide, rel=0.08)


def test_the_view_is_in_csv_and_markdown() -> None:
    board = leaderboard(records())
    lines = list(csv.DictReader(io.StringIO(board.equal_flops().csv())))
    assert [line["method"] for line in lines] == ["early", "late"] * 3
    assert float(lines[-2]["average low"]) < 37.5 < float(lines[-2]["average high"])
    text = board.equal_flops().markdown()
    assert "between ratio 0.1 (2) and ratio 0.3 (4)" in text
    assert "is not read off at 3, 4, 5.03" in text
    assert equal_flops([], board.comparison).rows == []
