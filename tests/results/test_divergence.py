"""Fidelity of predictions written by hand: agreement, first-token divergence, and what is kept of a comparison."""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.helpers.records import BASELINE, run
from uniprune.results.fidelity import Fidelity, FidelityCache, compare_predictions, divergence
from uniprune.results.predictions import FirstToken, Prediction, Predictions
from uniprune.results.records import RunRecord
from uniprune.results.store import Store


def first(rest: float, **shares: float) -> FirstToken:
    """A distribution over tokens "t1", "t2", …, most likely first."""
    return FirstToken(ids=[int(name[1:]) for name in shares], logs=[log(share) for share in shares.values()], rest=rest)


REFERENCE = first(0.1, t1=0.6, t2=0.3)
OTHER = first(0.2, t1=0.5, t3=0.3)


def test_the_divergence_is_over_common_tokens_and_one_bucket() -> None:
    expected = 0.6 * log(0.6 / 0.5) + 0.4 * log(0.4 / 0.5)
    assert divergence(REFERENCE, OTHER) == pytest.approx(expected)
    assert divergence(OTHER, REFERENCE) == pytest.approx(0.5 * log(0.5 / 0.6) + 0.5 * log(0.5 / 0.4))


def test_an_empty_bucket_counts_as_little_as_rounding_leaves() -> None:
    sure, unsure = first(0.0, t1=1.0), first(0.5, t1=0.5)
    assert divergence(unsure, sure) == pytest.approx(0.5 * log(0.5) + 0.5 * log(0.5 / 1e-6))
    assert divergence(sure, unsure) == pytest.approx(log(2), rel=1e-4)
    assert exp(sure.logs[0]) == 1


@pytest.mark.parametrize("broken", [{"logs": [float("nan")]}, {"logs": [-float("inf")]}, {"rest": float("nan")}])
def test_there_is_no_divergence_from_what_is_no_distribution(broken: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        FirstToken.model_validate({"ids": [1], "logs": [-0.1], "rest": 0.1} | broken)
    unchecked = FirstToken(ids=[1], logs=[-0.1], rest=0.1).model_copy(update=broken)
    for pair in ((REFERENCE, unchecked), (unchecked, REFERENCE)):
        with pytest.raises(ValueError, match="no divergence exists"):
            divergence(*pair)


def test_predictions_agree_when_their_texts_are_equal() -> None:
    found = compare_predictions(
        {"a": ("Yes", REFERENCE), "b": ("no", REFERENCE), "c": ("no", REFERENCE)},
        {"a": ("yes", REFERENCE), "b": ("no", OTHER)},
    )
    assert found == Fidelity(["a", "b"], [0, 1], [0.0, round(divergence(REFERENCE, OTHER), 7)])


def test_one_row_without_a_distribution_leaves_no_divergence() -> None:
    found = compare_predictions({"a": ("x", REFERENCE), "b": ("x", None)}, {"a": ("x", OTHER), "b": ("x", OTHER)})
    assert found == Fidelity(["a", "b"], [1, 1], None)
    assert compare_predictions({"a": ("x", None)}, {"b": ("x", None)}) is None


def stored(store: Store, method: str, texts: dict[str, str | None]) -> RunRecord:
    """A run with predictions; None is a row that could not be asked."""
    record = run(method, {})
    with Predictions(store.predictions(record.identity, "small")) as file:
        file.append(
            Prediction(index=row, prediction=text or "", error=None if text is not None else "damaged image")
            for row, text in texts.items()
        )
    return record


def test_rows_that_could_not_be_asked_are_not_compared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    runs = [stored(store, name, {"0": "yes", "1": None}) for name in (BASELINE, "m")]
    assert FidelityCache(store)(*runs, "small") == Fidelity(["0"], [1], None)


def test_a_comparison_is_made_again_when_predictions_were_added(tmp_path: Path) -> None:
    store = Store(tmp_path)
    baseline = stored(store, BASELINE, {"0": "yes", "1": "no"})
    pruned = stored(store, "m", {"0": "yes"})
    before = FidelityCache(store)(baseline, pruned, "small")
    kept = tmp_path / pruned.identity / "small.fidelity.json"
    kept.write_text(kept.read_text().replace('"same": [1]', '"same": [0]'))
    assert FidelityCache(store)(baseline, pruned, "small") != before, "read again although nothing had changed"
    stored(store, "m", {"1": "yes"})
    assert FidelityCache(store)(baseline, pruned, "small") == Fidelity(["0", "1"], [1, 0], None)
