"""Credit per item of the suite `field`, where it is not that of an earlier dataset's kind."""

from __future__ import annotations

from collections import defaultdict

from .items import Credits, Evaluation, choices


def cycles(evaluation: Evaluation) -> Credits:
    """HR-Bench: one credit per row; the headline is the mean accuracy over the orders of the options."""
    rows = choices(evaluation)
    parts: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for index, cycle in zip(evaluation.indices, evaluation.table["cycle_category"], strict=True):
        parts[str(cycle)][index] = (rows.per_item[index], 1.0)
    return rows._replace(parts=dict(parts))


def matched_pairs(evaluation: Evaluation) -> Credits:
    """MMVP: one credit per pair of rows with one question, in file order, only if both were answered correctly."""
    rows = choices(evaluation)
    asked: dict[str, list[str]] = defaultdict(list)
    for index, question in zip(evaluation.indices, evaluation.table["question"], strict=True):
        asked[str(question)].append(index)
    pairs = [pair for found in asked.values() for pair in zip(found[::2], found[1::2], strict=True)]
    return rows._replace(per_item={first: min(rows.per_item[first], rows.per_item[other]) for first, other in pairs})
