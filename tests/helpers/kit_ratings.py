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


def _overall(table: Table, rows: int) -> dict[str, Any]:
    """The row `Overall`; the first column is named differently in MathVista and MathVision."""
    return next(row for row in table if next(iter(row.values())) == "Overall")


RATINGS: dict[str, Callable[[Table, int], float]] = {
    "mme": _mme,
    "pope": lambda table, rows: _overall(table, rows)["Overall"],
    "hallusionbench": lambda table, rows: sum(_overall(table, rows)[name] for name in ("aAcc", "fAcc", "qAcc")) / 3,
    "mathvista": lambda table, rows: _overall(table, rows)["acc"],
    "mathvision": lambda table, rows: _overall(table, rows)["acc"],
    "mathvision-mini": lambda table, rows: _overall(table, rows)["acc"],
    "ocrbench": lambda table, rows: 100 * table[0]["Final Score"] / rows,
    "mia-bench": lambda table, rows: 100 * table[0]["total_score"],
    **dict.fromkeys(("gqa", "textvqa", "chartqa"), lambda table, rows: table[0]["Overall"]),
}


def own_rating(name: str, score: Score) -> float:
    """Return the kit's own number for a dataset's headline."""
    return RATINGS.get(name, _choices)(score.details["table"], score.rows)
