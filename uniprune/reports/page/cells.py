"""Columns and rows of the page's leaderboard, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uniprune.results.comparison import RunComparison, SeedGroup
from uniprune.results.leaderboard import Leaderboard
from uniprune.results.statistics import RankInterval
from uniprune.results.table import CellValue, ScoreCell, WideCell, text

Cell = str | list[Any] | None
"""A cell: its text; with a number, the text, that number, the ends of its interval and a longer text."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "run": ("method", "model", "ratio"),
    "result": ("average", "rows", "rank", "budget group", "relative %"),
    "benchmarks": (),
    "fidelity": ("agreement %", "first-token KL"),
    "times": (
        *("net speed-up", "net ceiling", "of ceiling %"),
        *("total ms", "batch TTFT ms", "prefill ms", "method ms", "batch", "device"),
    ),
    "sizes": ("visual tokens", "TFLOPs", "KV MB"),
    "hard rows": (),
}
"""Parts of the table in the order of the page; all other columns are the part "details"."""


def columns(board: Leaderboard) -> list[tuple[str, str]]:
    """Return the columns of the page in order, each with its part of the table."""
    hard = {name for name in board.columns if any(name.startswith(f"{one} ") for one in board.benchmarks)}
    own = {"benchmarks": list(board.benchmarks), "hard rows": [name for name in board.columns if name in hard]}
    found = [(name, part) for part, names in PARTS.items() for name in own.get(part, names)]
    known = {name for name, _ in found}
    return found + [(name, "details") for name in board.columns if name not in known]


def cell(column: str, value: CellValue) -> Cell:
    """Return a cell as JSON."""
    if value is None:
        return None
    shown = text(column, value)
    if isinstance(value, ScoreCell):
        low, high = value.interval or (None, None)
        return [shown, value.value, low, high, value.wide()]
    plain = next(iter(value.columns().values())) if isinstance(value, WideCell) else value
    return [shown, plain] if isinstance(plain, float | int) else shown


def rows(board: Leaderboard) -> list[dict[str, Any]]:
    """Return the rows of the page: cells, runs, scores by ability, and whether tied with the first, or un-pruned."""
    groups = {" ".join(run.identity for run in group.runs): group for group in board.groups}
    names, covered = [name for name, _ in columns(board)], _covered(board.groups)
    found = []
    for row in board.rows:
        group, rank = groups[str(row["identity"])], row.get("rank")
        found.append(
            {
                "cells": [cell(name, row.get(name)) for name in names],
                "runs": [run.identity for run in group.runs],
                "abilities": abilities(group, board.comparison, covered[group.setup.weights]),
                "tied": isinstance(rank, RankInterval) and rank.tied,
                "whole": group.setup.method.kind == "none",
                "settings": group.settings,
            }
        )
    return found


def abilities(group: SeedGroup, comparison: RunComparison, covered: Mapping[str, set[str]]) -> dict[str, Cell]:
    """Return the mean score per ability, of those whose benchmarks the group has all scored.

    Args:
        group: the runs.
        comparison: has their estimates.
        covered: ability -> benchmarks of it that any run of the model has scored.
    """
    found: dict[str, Cell] = {}
    for ability, names in sorted(covered.items()):
        if names <= group.scores.keys():
            estimate = comparison.average(group, sorted(names))
            found[ability] = cell(ability, ScoreCell(estimate.value, estimate.interval()))
    return found


def _covered(groups: Sequence[SeedGroup]) -> dict[str, dict[str, set[str]]]:
    """Map weights to abilities to the benchmarks that any run has scored."""
    found: dict[str, dict[str, set[str]]] = {}
    for group in groups:
        known = found.setdefault(group.setup.weights, {})
        for name, entry in group.scores.items():
            known.setdefault(entry.ability, set()).add(name)
    return found
