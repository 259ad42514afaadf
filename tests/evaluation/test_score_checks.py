"""Rows, score, credits and sums of a benchmark are checked before anything of them is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request, Score
from uniprune.evaluation.score_checks import check_requests, check_score

NAN = float("nan")
ROWS = ["1", "2", "3", "4"]
SCORE = Score(
    value=50.0, metric="accuracy", rows=4, unparsed=1, per_item={"1": 1.0, "2": 0.0}, clusters={"1": "a", "3": "a"},
    parts={"F1": {"1": (1.0, 2.0), "2": (0.0, 0.0)}},
)  # fmt: skip


def request(index: Any) -> Request:
    return Request(index, load=tuple, question="?")


def test_a_score_of_the_rows_is_returned() -> None:
    assert check_score(SCORE, "b", ROWS) is SCORE
    for good in (
        replace(SCORE, value=0),
        replace(SCORE, value=np.float64(100.0)),
        replace(SCORE, per_item={}, parts={}),
        replace(SCORE, value=100 + 1e-10, per_item={"1": 1 + 1e-12}, parts={}),
    ):
        assert check_score(good, "b", ROWS) is good


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"value": 900.0}, r"value is 900.0; expected a number from 0 to 100"),
        ({"value": -5.0}, "value is -5.0"),
        ({"value": NAN}, "value is nan"),
        ({"value": float("inf")}, "value is inf"),
        ({"value": "50"}, "value is '50'"),
        ({"value": True}, "value is True"),
        ({"value": None}, "value is None"),
        ({"metric": " "}, "metric is ' '; expected a name"),
        ({"judge": None}, "judge is None; expected a name"),
        ({"judge_note": None}, "judge_note is None; expected a text"),
        ({"rows": 0}, "rows is 0; expected 4"),
        ({"rows": 5}, "rows is 5"),
        ({"rows": 2.0}, "rows is 2.0"),
        ({"unparsed": 5}, "unparsed is 5; expected a whole number from 0 to 4"),
        ({"unparsed": -1}, "unparsed is -1"),
        ({"per_item": {"1": 7.0}}, r"per_item\['1'\] is 7.0; expected a text with a number from 0 to 1"),
        ({"per_item": {"1": -3.0}}, r"per_item\['1'\] is -3.0"),
        ({"per_item": {"1": NAN}}, r"per_item\['1'\] is nan"),
        ({"per_item": {1: 1.0}}, r"per_item\[1\] is 1.0"),
        ({"per_item": dict.fromkeys("12345", 1.0)}, "per_item has 5 items; expected at most one per row, so 4"),
        ({"per_item": {"9": 1.0}}, "per_item has '9', which is no row that was answered"),
        ({"scorer": None}, "scorer is None; expected a text"),
        ({"clusters": {"1": 3}}, r"clusters\['1'\] is 3; expected two texts"),
        ({"parts": {"F1": {"1": (NAN, 1.0)}}}, r"parts\['F1'\]\['1'\] is \(nan, 1.0\)"),
        ({"parts": {"F1": {"1": (1.0, -1.0), "2": (1.0, 1.0)}}}, r"parts\['F1'\]\['1'\] is \(1.0, -1.0\)"),
        ({"parts": {"F1": {"9": (1.0, 1.0)}}}, r"parts\['F1'\] has the item '9', which per_item has not"),
    ],
)
def test_what_cannot_be_a_score_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=rf"^b: its score is refused and not stored: {problem}"):
        check_score(replace(SCORE, **{"parts": {}} | change), "b", ROWS)


@pytest.mark.parametrize(
    ("indices", "problem"),
    [
        ([], "b has no rows"),
        (["1", "2", "1"], "b: 2 rows have the index '1'"),
        ([1], "b: the index 1 of a row must be a text"),
        ([""], "b: the index '' of a row must be a text"),
    ],
)
def test_rows_need_an_index_of_their_own(indices: list[Any], problem: str) -> None:
    check_requests("b", [request("1"), request("2")])
    with pytest.raises(UserError, match=problem):
        check_requests("b", [request(index) for index in indices])
