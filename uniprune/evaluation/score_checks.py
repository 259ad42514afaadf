"""Checks of what a benchmark returns, before anything of it is stored or shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from numbers import Integral, Real

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request, Score
from uniprune.results.records import SLACK


def check_requests(name: str, requests: Sequence[Request]) -> None:
    """Check the rows of a benchmark.

    Raises:
        UserError: it has none, or two with one index, or an index that is no text; the message names it.
    """
    if not requests:
        raise UserError(f"{name} has no rows, so it has no score; correct the benchmark, or leave it out")
    for index, count in Counter(request.index for request in requests).items():
        if type(index) is not str or not index.strip():
            raise UserError(f"{name}: the index {index!r} of a row must be a text that is not blank")
        if count > 1:
            raise UserError(f"{name}: {count} rows have the index {index!r}; every row needs its own")


def check_score(score: Score, name: str, rows: Collection[str], left_out: Collection[str] = ()) -> Score:
    """Return a benchmark's score of some rows if it can be one.

    Args:
        score: the score.
        name: the benchmark.
        rows: indices of the rows that it is about.
        left_out: indices of the rows that it must not be about.

    Raises:
        UserError: a number is outside its range or not finite, other rows are scored, or there are more items than
            rows; the message names it.
    """
    for problem in _problems(score, rows, left_out):
        raise UserError(f"{name}: its score is refused and not stored: {problem}; correct the benchmark's `score`")
    return score


def _problems(score: Score, answered: Collection[str], left_out: Collection[str]) -> Iterator[str]:
    """Yield the reasons why this is no score of the rows that were answered."""
    rows = len(answered)
    if not _within(score.value, 0, 100):
        yield f"value is {score.value!r}; expected a number from 0 to 100"
    for name, text in (("metric", score.metric), ("judge", score.judge)):
        if type(text) is not str or not text.strip():
            yield f"{name} is {text!r}; expected a name"
    for name, text in (("judge_note", score.judge_note), ("scorer", score.scorer)):
        if type(text) is not str:
            yield f"{name} is {text!r}; expected a text"
    if not _counts(score.rows, max(rows, 1), rows):
        yield f"rows is {score.rows!r}; expected {rows}: the rows with a prediction, and none of those left out"
    elif not _counts(score.unparsed, 0, score.rows):
        yield f"unparsed is {score.unparsed!r}; expected a whole number from 0 to {score.rows}, the rows scored"
    elif len(score.per_item) > score.rows:
        yield f"per_item has {len(score.per_item)} items; expected at most one per row, so {score.rows}"
    if scored := sorted(set(left_out) & set(score.per_item)):
        yield f"per_item has {scored[0]!r}, a row that is left out"
    elif strange := [index for index in score.per_item if type(index) is str and index not in answered]:
        yield f"per_item has {strange[0]!r}, which is no row that was answered (a group goes by one of its rows)"
    for index, credit in score.per_item.items():
        if type(index) is not str or not _within(credit, 0, 1):
            yield f"per_item[{index!r}] is {credit!r}; expected a text with a number from 0 to 1"
    for index, cluster in score.clusters.items():
        if type(index) is not str or type(cluster) is not str:
            yield f"clusters[{index!r}] is {cluster!r}; expected two texts"
    for part, sums in score.parts.items():
        for index, (above, below) in sums.items():
            if index not in score.per_item:
                yield f"parts[{part!r}] has the item {index!r}, which per_item has not"
            if not (_within(above, -math.inf, math.inf) and _within(below, 0, math.inf)):
                yield f"parts[{part!r}][{index!r}] is {(above, below)!r}; expected two finite numbers, the second >= 0"


def _within(value: object, low: float, high: float) -> bool:
    """Check whether a value is a finite number in a range; true and false are none."""
    if type(value) is bool or not isinstance(value, Real):
        return False
    return math.isfinite(value) and low - SLACK <= float(value) <= high + SLACK


def _counts(value: object, low: int, high: int) -> bool:
    """Check whether a value is a whole number in a range."""
    return type(value) is not bool and isinstance(value, Integral) and low <= int(value) <= high
