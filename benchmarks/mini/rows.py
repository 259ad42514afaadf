"""Rows of the mini suite's measured tables, from the records of runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from uniprune.errors import UserError
from uniprune.registry import METHODS
from uniprune.results.budgets import agree
from uniprune.results.records import DatasetRecord, RunRecord

if TYPE_CHECKING:
    from .pages import Page

ABILITIES = ("comprehensive", "mathematical", "ocr", "instruction", "multidisciplinary", "hallucination")
PRE, INTRA = "random-pre", "random-intra"
BEFORE = ("input", "tower", "pre-llm")
"""Kinds of methods after which the language model gets fewer tokens from its first layer on, as of random-pre."""
Scored = dict[str, DatasetRecord]
"""The ten scored tables of one run, by name."""


def scored(record: RunRecord) -> Scored:
    """Return the scored tables of the mini suite in a run; none unless all ten are.

    Raises:
        UserError: rows were left out of a score: the pages compare items of complete tables.
    """
    entries = {name: entry for name, entry in record.datasets.items() if entry.suite == "mini" and entry.score}
    if lacking := [f"{name} ({len(entry.faulty)} rows)" for name, entry in entries.items() if entry.faulty]:
        raise UserError(
            f"run {record.identity} left rows out of {', '.join(lacking)}; its *.record.json give the reasons. Move "
            "its folder away, or mend them and run it again"
        )
    return entries if len(entries) == 10 else {}


def shown(page: Page, records: Iterable[RunRecord]) -> list[RunRecord]:
    """Return the runs of a page's models, methods and ratios that have all scores."""
    methods = ("none", *page.methods)
    found = []
    for record in records:
        method, ratio = record.setup.method.name, record.setup.ratio
        known = record.model.name in page.models and method in methods
        if known and scored(record) and (method == "none" or ratio in page.ratios):
            found.append(record)
    return found


def rows(page: Page, records: Iterable[RunRecord]) -> list[dict[str, str]]:
    """Return one row per model, method and ratio, in table order; the seeds of random pruning together."""
    order = ("none", *page.methods)
    runs: dict[tuple[str, str, float], list[RunRecord]] = defaultdict(list)
    for record in shown(page, records):
        runs[record.model.name, record.setup.method.name, record.setup.ratio].append(record)
    out = []
    for (model, method, ratio), same in runs.items():
        seeds = page.seeds if method in (PRE, INTRA) else (0,)
        chosen = [scored(record) for record in same if record.setup.seed in seeds]
        row = {"model": model, "method": method, "ratio": f"{ratio:g}", **_scores(page, chosen, len(seeds) > 1)}
        random = runs.get((model, PRE if same[0].setup.method.kind in BEFORE else INTRA, ratio), [])
        if page.compared and method not in ("none", PRE, INTRA) and random:
            row |= _against(chosen[0], [scored(record) for record in random])
        out.append(row)
    out.sort(key=lambda row: (page.models.index(row["model"]), order.index(row["method"]), -float(row["ratio"])))
    return out


def rival(row: Mapping[str, str], table: Iterable[Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the row of random pruning at the place and ratio of a method's row; None without any, or for itself."""
    method = row["method"]
    if method in ("none", PRE, INTRA):
        return None
    name = PRE if method in METHODS.names() and METHODS.get(method).kind in BEFORE else INTRA
    place = (row["model"], name, row["ratio"])
    return next((one for one in table if (one["model"], one["method"], one["ratio"]) == place), None)


def of_equal_budget(row: Mapping[str, str], random: Mapping[str, str]) -> bool:
    """Return whether a method and random pruning measured as many visual tokens per layer."""
    return agree(float(row["visual tokens"]), float(random["visual tokens"]))


def among_equal_budgets(table: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows, without the difference to random pruning where it kept another number of visual tokens."""
    found: list[dict[str, str]] = []
    for row in table:
        random = rival(row, table)
        apart = random is not None and not of_equal_budget(row, random)
        gone = [name for name in ("random", "low", "high") if apart and name in row]
        found.append({**row, **dict.fromkeys(gone, "")})
    return found


def _scores(page: Page, runs: Sequence[Scored], several: bool) -> dict[str, str]:
    """Compute the means over the runs of one method, with their spread if there are several seeds."""
    tokens = [entry.ledger.average for entries in runs for entry in entries.values() if entry.ledger]
    averages = [fmean(entry.score.value for entry in entries.values() if entry.score) for entries in runs]
    if several:
        half_width = stdev(averages) if len(averages) > 1 else float("nan")
    else:
        low, high = interval([credits(entry) for entry in runs[0].values()])
        half_width = (high - low) / 2
    entries = [entry for run in runs for entry in run.values()]
    by_ability = {
        ability: fmean(entry.score.value for entry in entries if entry.score and entry.ability == ability)
        for ability in ABILITIES
    }
    return {
        "visual tokens": f"{fmean(tokens):.1f}",
        **{ability: f"{score:.1f}" for ability, score in by_ability.items()},
        "average": f"{fmean(averages):.1f}",
        page.half_width: f"{half_width:.1f}",
    }


def _against(entries: Scored, random: Sequence[Scored]) -> dict[str, str]:
    """Compute the paired difference of the mean credit to random pruning, averaged over its seeds."""
    differences = [
        credits(entry) - np.mean([credits(other[name]) for other in random], axis=0) for name, entry in entries.items()
    ]
    low, high = interval(differences)
    middle = 100 * fmean(float(difference.mean()) for difference in differences)
    return {"random": f"{middle:+.1f}", "low": f"{low:+.1f}", "high": f"{high:+.1f}"}


def credits(entry: DatasetRecord) -> np.ndarray:
    """Return the credit of every item of a scored table, 0-1, in the order of the items."""
    assert entry.score is not None
    return np.array([value for _, value in sorted(entry.score.per_item.items())])


def interval(tables: Iterable[np.ndarray], resamples: int = 4000) -> tuple[float, float]:
    """Bootstrap the 95 % interval of the mean over tables of the mean item, in points; items resampled per table."""
    rng = np.random.default_rng(0)
    means = [rng.choice(items, (resamples, len(items))).mean(1) for items in tables]
    low, high = np.percentile(np.mean(means, axis=0), [2.5, 97.5])
    return 100 * float(low), 100 * float(high)
