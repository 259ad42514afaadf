"""Cells of scores, averages and shares of the un-pruned score, computed for many groups of runs at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from uniprune.results.comparison import RunComparison, SeedGroup
from uniprune.results.statistics import Estimate, intervals
from uniprune.results.table import ScoreCell

AVERAGE, RELATIVE = "average", "relative %"
AT_ONCE = 100
"""Groups whose shares of the un-pruned score are in memory together."""

Cells = Mapping[str, ScoreCell]


def score_cells(
    groups: Sequence[SeedGroup], comparison: RunComparison, covered: Mapping[str, set[str]]
) -> dict[int, Cells]:
    """Return the id of every group -> column -> cell: its benchmarks, the average, the share of the un-pruned score.

    Args:
        groups: of the table.
        comparison: has their estimates.
        covered: weights -> benchmarks that an average must have.
    """
    alike: dict[str, list[SeedGroup]] = defaultdict(list)
    for group in groups:
        alike[group.settings].append(group)
    found: dict[int, Cells] = {}
    for members in alike.values():
        for start in range(0, len(members), AT_ONCE):
            some = members[start : start + AT_ONCE]
            found |= zip(map(id, some), _cells(some, comparison, covered), strict=True)
    return found


def _cells(
    groups: Sequence[SeedGroup], comparison: RunComparison, covered: Mapping[str, set[str]]
) -> Iterator[dict[str, ScoreCell]]:
    """Yield the cells of groups of one model and settings."""
    relative = comparison.relatives([(group, group.scores) for group in groups])
    each: list[dict[str, Estimate]] = []
    for group, share in zip(groups, relative, strict=True):
        known = {name: comparison.score(group, name) for name in group.scores}
        if known and covered[group.setup.weights] == known.keys():
            known[AVERAGE] = comparison.average(group, group.scores)
        each.append(known | ({RELATIVE: share} if share else {}))
    ends = iter(intervals([one for known in each for one in known.values()]))
    for group, known in zip(groups, each, strict=True):
        yield {column: ScoreCell(one.value, next(ends), _spread(group, column)) for column, one in known.items()}


def _spread(group: SeedGroup, column: str) -> float | None:
    """Return the standard deviation over seeds of a score or of the average."""
    return None if column == RELATIVE else group.spread(group.scores if column == AVERAGE else [column])
