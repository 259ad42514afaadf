"""Notes on benchmarks with too few images for an interval or a test."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from uniprune.results.comparison import RunComparison, SeedGroup
from uniprune.results.statistics import FEWEST, Estimate


def too_few(estimate: Estimate) -> str:
    """Return `too few images: 2 of 5`: those of the smallest benchmark or category, and those it takes."""
    return f"too few images: {estimate.clusters} of {FEWEST}"


def few_notes(
    groups: Iterable[SeedGroup], comparison: RunComparison, benchmarks: Collection[str] | None = None
) -> list[str]:
    """Return one note that names the benchmarks with too few images, or none.

    Args:
        groups: of one table.
        comparison: has their estimates.
        benchmarks: those of the table; None for all.
    """
    found: dict[str, int] = {}
    for group in groups:
        for name in group.scores:
            score = comparison.score(group, name)
            if not score.enough and (benchmarks is None or name in benchmarks):
                found[name] = min(score.clusters, found.get(name, FEWEST))
    if not found:
        return []
    each = ", ".join(f"{name} {clusters}" for name, clusters in found.items())
    return [
        f"Too few images (the fewest of any run): {each}. An interval, a rank's interval or a test needs {FEWEST} of "
        "every benchmark, and of every category where the score is a mean of categories (--limit leaves fewer)."
    ]
