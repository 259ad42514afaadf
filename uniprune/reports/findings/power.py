"""Power: the differences between two methods that a number of rows can show, before they are run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from uniprune.reports.findings.study import Study
from uniprune.results.comparison import SeedGroup
from uniprune.results.statistics import Estimate, detectable_by, detectable_on
from uniprune.results.statistics.comparisons import LEVEL

ASSUMED = 0.2
"""Share of rows on which two methods differ where no pair was measured."""


@dataclass(frozen=True)
class Pair:
    """Two methods of equal budget on one benchmark.

    Attributes:
        weights: those of the model.
        difference: of their scores.
        rows: scored.
        differ: share of items on which their credits differ, of their first seeds.
    """

    weights: str
    difference: Estimate
    rows: int
    differ: float


@dataclass(frozen=True)
class Power:
    """Difference in points that some rows of a benchmark show in 80 % of cases.

    Attributes:
        rows: of the benchmark.
        one: for a single comparison at 5 %; None if no difference can be shown.
        all: for one of so many pairs, at 5 % for any of them; None likewise.
        pairs: their number.
        basis: where the spread is from, with the share of rows that differ.
    """

    rows: int
    one: float | None
    all: float | None
    pairs: int
    basis: str

    def __str__(self) -> str:
        """Return `9000 rows show 1.1 points between two methods, 1.6 as one of 28 pairs (…)`."""
        if self.one is None:
            return f"{self.rows} rows show no difference between two methods ({self.basis})"
        shown = f"{self.rows} rows show {self.one:.1f} points between two methods"
        if self.pairs > 1:
            shown += f", {'none' if self.all is None else f'{self.all:.1f}'} as one of {self.pairs} pairs"
        return f"{shown} ({self.basis})"


class PowerAnalysis:
    """Power from the discordance of stored pairs of methods, or an assumed one.

    Args:
        study: of the stored runs; None without any.
        assumed: share of rows on which two methods differ. None takes that of stored pairs, else `ASSUMED`.
    """

    def __init__(self, study: Study | None, assumed: float | None = None) -> None:
        self._study, self._assumed = study, assumed
        self._pairs: dict[str, list[Pair]] = {}

    def pairs(self, name: str) -> list[Pair]:
        """Return the pairs of stored methods on a benchmark, none where the discordance is assumed."""
        if name not in self._pairs:
            study = self._study if self._assumed is None else None
            duels = study.duels([name]) if study else []
            self._pairs[name] = [_pair(study, one, other, name) for one, other, _ in duels if study]
        return self._pairs[name]

    def on(self, name: str, rows: int, pairs: int, weights: str | None = None) -> Power:
        """Return the power of some rows of a benchmark.

        Args:
            name: the benchmark.
            rows: their number.
            pairs: comparisons that p values will be corrected for.
            weights: of the model; pairs of other models are used only if none of it is stored.
        """
        found = self.pairs(name)
        own = [pair for pair in found if pair.weights == weights]
        level = LEVEL / max(1, pairs)
        if not found:
            share = ASSUMED if self._assumed is None else self._assumed
            basis = f"assumed: {100 * share:g} % of rows differ"
            return Power(rows, detectable_by(rows, share), detectable_by(rows, share, level), pairs, basis)
        used = own or found
        differ = [100 * pair.differ for pair in used]
        basis = f"{_span(differ)} % of rows differ in {len(used)} stored pair" + "s" * (len(used) > 1)
        basis += " of other models" * (weights is not None and not own)
        alike = sum(detectable_on(pair.difference) is None for pair in used)
        basis += f", {alike} without a test" * bool(alike)
        return Power(rows, _middle(used, rows, LEVEL), _middle(used, rows, level), pairs, basis)


def _pair(study: Study, one: SeedGroup, other: SeedGroup, name: str) -> Pair:
    """Return a pair of comparable groups."""
    scores = [group.scores[name].score for group in (one, other)]
    credits = [score.per_item for score in scores if score]
    items = list(credits[0])
    differ = sum(credits[0][item] != credits[1].get(item) for item in items) / max(1, len(items))
    rows = max(score.rows for score in scores if score)
    return Pair(one.setup.weights, study.difference(one, other, name), rows, differ)


def _middle(pairs: Sequence[Pair], rows: int, level: float) -> float | None:
    """Return the median over pairs that can be tested; None if there is none, or if it is off the scale."""
    each = [detectable_on(pair.difference, rows / pair.rows, level) for pair in pairs]
    known = [value for value in each if value is not None]
    found = median(known) if known else None
    return found if found is not None and found <= 100 else None


def _span(values: Sequence[float]) -> str:
    """Return `12 (5 to 20)`: the median, and the range."""
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return f"{median(values):.0f}" + f" ({low} to {high})" * (low != high)


def power_lines(study: Study | None, rows: Sequence[int], assumed: float | None = None) -> list[str]:
    """Return one line per benchmark and number of rows.

    Args:
        study: of the stored runs, whose benchmarks are listed; None without any.
        rows: numbers of rows beside those of the stored runs.
        assumed: as for `PowerAnalysis`.
    """
    analysis = PowerAnalysis(study, assumed)
    if study is None or not study.benchmarks:
        return [str(analysis.on("", count, 1)) for count in rows]
    lines = []
    for name in study.benchmarks:
        scored = {
            group.scores[name].rows - group.scores[name].left_out for group in study.pruned if name in group.scores
        }
        pairs = len(analysis.pairs(name)) or 1
        lines += [f"{name}: {analysis.on(name, count, pairs)}" for count in sorted({*scored, *rows})]
    return lines
