"""Hard rows (VTC-Bench, arXiv 2510.07143): methods where the image resized to the same budget is not enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from uniprune.reports.findings.study import Finding, Study, named, place, tested, untested
from uniprune.results.hard_accuracy import PARTS, PartScore
from uniprune.results.statistics import Estimate


def hard_rows(study: Study) -> Finding:
    """Every pair of methods of equal budget on the rows that the same resized run answers wrong, and right."""
    claim = "10. Methods differ where a smaller image fails, less where it is enough (VTC-Bench, arXiv 2510.07143)"
    hard = study.hard
    differences: list[tuple[str, Estimate]] = []
    for one, other, name in study.duels():
        if hard.reference(one, name) is not hard.reference(other, name):
            continue
        sides = [hard.scores(group, name) for group in (one, other)]
        for part in (part for part in PARTS if all(part in side and not _repeats(part, side) for side in sides)):
            first, second = (side[part].accuracy for side in sides)
            if first is not None and second is not None:
                label = f"{part} rows of {name} ({sides[0][part].rows}): "
                label += f"{one.setup.method.name} − {other.setup.method.name}, {place(one)}"
                differences.append((label, first - second))
    details = [
        f"{name}, {place(group, method=True)}: " + ", ".join(_parts(scores))
        for name in hard.benchmarks
        for group in sorted(study.pruned, key=lambda group: (group.setup.ratio, group.setup.method.name))
        if (scores := hard.scores(group, name))
    ]
    if not details:
        words = [*named(lambda m: m.kind == "input", 1), *named(lambda m: m.kind not in ("none", "input"))]
        return Finding(claim, missing=study.command("none", *words, rivals=True))
    lines = tested(differences)
    counts = []
    for part in PARTS:
        own = [line for line in lines if line.label.startswith(f"{part} rows of ") and line.test]
        counts += [f"{sum(bool(line.sign) for line in own)} of {len(own)} on {part} rows"] * bool(own)
    summary = (
        f"pairs of methods that differ: {', '.join(counts)}" if counts else "no two methods of equal budget to test"
    )
    return Finding(claim, untested(lines) or summary, lines, details=details)


def _repeats(part: str, side: Mapping[str, PartScore]) -> bool:
    """Return whether a known part has all rows of the part that it is of, so that it would be tested twice."""
    whole = part.removesuffix(" known")
    return part != whole and whole in side and side[part].rows == side[whole].rows


def _parts(side: Mapping[str, PartScore]) -> Iterator[str]:
    """Yield the scores in words; a known part that has all rows is only said to."""
    for part, one in side.items():
        if not _repeats(part, side):
            known = f"{part} known" in side and _repeats(f"{part} known", side)
            yield _part(part, one) + " (all known)" * known


def _part(part: str, one: PartScore) -> str:
    """Return `hard 41.2 [30.1, 52.3] of 120 rows`."""
    if one.accuracy is None:
        return f"{part} no rows"
    interval = one.accuracy.interval()
    ends = f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else " (too few images)"
    wrong = f" ({one.unanswered} unanswered, wrong)" * bool(one.unanswered)
    return f"{part} {one.accuracy.value:.1f}{ends} of {one.rows} rows{wrong}"
