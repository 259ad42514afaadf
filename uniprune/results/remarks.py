"""Remarks on rows: what happened to one that a reader of its score should know, counted per benchmark.

A row with a remark was asked and scored. Its prediction line holds the remarks, the benchmark's record their counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from uniprune.results.predictions import Prediction

REMARKS: Mapping[str, str] = {
    "question not found": "do not contain their question as the benchmark gives it; a method that reads attention from "
    "the question's tokens gets it from the whole message",
}
"""Remark as it is stored -> what is said of the rows that have it, after their number."""


def count_remarks(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Return how many predictions have each remark, in the order of `REMARKS`; those that none has are left out."""
    found = Counter(remark for one in predictions for remark in one.remarks)
    return {remark: found[remark] for remark in REMARKS if found[remark]}
