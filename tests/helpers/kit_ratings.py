"""VLMEvalKit's own ratings as one number, 0–100, from the table that a score holds in its details."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uniprune.benchmarks._kit.headline import MME_CATEGORIES
from uniprune.evaluation.dataset import Score

Table = list[dict[str, Any]]


def _mme(table: Table, rows: int) -> float:
    """Perception + reasoning over 200 per category present: the usual total / 28 for the full set."""
    [row] = table
    present = sum(category in row for category in MME_CATEGORIES)
    return 100 * float(row["perception"] + row["reasoning"]) / (200 * present)


def _choices(table: Table, rows: int) -> float:
    """The mean over splits, which the examples have one of."""
    return 100 * sum(row["Overall"] for row in table) / len(table)


def _hrbench(table: Table, rows: int) -> float:
    """The mean over the orders of the options."""
    [accuracy] = [row["accuracy"] for row in table if (row["cycle"], row["type"]) == ("Average", "all")]
    return 100 * float(accuracy)


def _overall(table: Table, rows: int) -> dict[str, Any]:
    """The row `Overall`; the first column is named differently in MathVista and MathVision."""
    return next(row for row in table if next(iter(row.values())) == "Overall")


RATINGS: dict[str, Callable[[Table, int], float]] = {
    "mme": _mme,
    "pope": lambda table, rows: _overall(table, rows)["Overall"],
    "hallusionbench": lambda table, rows: sum(_overall(table, rows)[name] for name in ("aAcc", "fAcc", "qAcc")) / 3,
    **dict.fromkeys(("hrbench-4k", "hrbench-8k"), _hrbench),
    "mathvista": lambda table, rows: _overall(table, rows)["acc"],
    "mathvision": lambda table, rows: _overall(table, rows)["acc"],
    "mathvision-mini": lambda table, rows: _overall(table, rows)["acc"],
    "ocrbench": lambda table, rows: 100 * table[0]["Final Score"] / rows,
    "mia-bench": lambda table, rows: 100 * table[0]["total_score"],
    "refcoco": lambda table, rows: next(row["Precision@1"] for row in table if row["Split"] == "Average"),
    "mm-vet": lambda table, rows: next(row["acc"] for row in table if row["Category"] == "Overall"),
    "llava-bench": lambda table, rows: next(row["Relative Score (main)"] for row in table if row["split"] == "overall"),
    **dict.fromkeys(
        ("gqa", "textvqa", "chartqa", "vizwiz", "docvqa", "infovqa"), lambda table, rows: table[0]["Overall"]
    ),
}


def own_rating(name: str, score: Score) -> float:
    """Return the kit's own number for a dataset's headline."""
    return RATINGS.get(name, _choices)(score.details["table"], score.rows)


def own_unit(name: str, table: Table, rows: int) -> float:
    """Return the kit's own number, 0 to 1, for rows that are one item: of POPE its accuracy, as one row has no F1.

    All rows of MM-Vet are rated at once, of which one has a grade above 0.
    """
    if name == "pope":
        return float(_overall(table, rows)["acc"]) / 100
    number = float(RATINGS.get(name, _choices)(table, rows)) / 100
    return number * rows if name == "mm-vet" else number
