"""The ledger and the timing of a benchmark, added up from predictions written by hand."""

from __future__ import annotations

import pytest

from uniprune.results.aggregate import ledger, quantity
from uniprune.results.predictions import Prediction


def row(tokens: list[int], requested: float | None = 4.0, **fields: object) -> Prediction:
    plain = {"index": "0", "prediction": "", "visual_tokens": tokens, "requested": requested}
    return Prediction.model_validate(plain | fields)


@pytest.mark.parametrize(("layers", "flagged"), [([4, 4], False), ([5, 5], False), ([6, 5], True), ([2, 3], True)])
def test_a_budget_may_be_missed_by_one_token(layers: list[int], flagged: bool) -> None:
    found = ledger([row([4, 4]), row(layers)])
    assert found is not None and found.flagged is flagged


def test_rows_without_an_image_are_not_in_the_ledger() -> None:
    found = ledger([row([8, 2], 5.0), row([0, 0], 0.0), row([4, 0], 2.0)])
    assert found is not None
    assert (found.layers, found.average, found.requested) == ([6, 1], 3.5, 3.5)
    assert ledger([row([0, 0])]) is None


def test_one_row_of_free_choice_makes_the_method_adaptive() -> None:
    found = ledger([row([4, 4]), row([9, 9], None)])
    assert found is not None and found.adaptive and found.requested is None and not found.flagged


def test_a_mean_needs_every_row() -> None:
    found = ledger([row([4, 4], kv_bytes=100, initial=8), row([4, 4], initial=10)])
    assert found is not None and found.kv_bytes is None and found.initial == 9


def test_a_span_has_its_median_quartile_distance_and_total() -> None:
    found = quantity([0.001, 0.002, 0.003, 0.004, 0.010])
    assert (found.median, found.iqr, found.total) == pytest.approx((3, 2, 0.020))
