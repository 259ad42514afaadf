"""One function per finding: its claim, the differences that test it, and the command for runs that are missing.

The first line of each docstring describes the differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, pairwise

import numpy as np

from uniprune.reports.findings.hard import hard_rows
from uniprune.reports.findings.horizon import horizon
from uniprune.reports.findings.study import (
    Finding,
    Line,
    Study,
    by_chance,
    common,
    equal_methods,
    named,
    parts,
    place,
    tested,
    untested,
    verdict,
)
from uniprune.results.budgets import agree, visual_tokens
from uniprune.results.comparison import SeedGroup
from uniprune.results.statistics import Estimate, jointly, mean
from uniprune.results.statistics.headline import Array


def random_baseline(study: Study) -> Finding:
    """Random choice minus every other method, where it acts at the same place if there is such a baseline.

    A resized image is no method that was designed to choose tokens: it is what methods are compared with.
    """
    claim = "1. Random pruning is a strong baseline: it beats methods that were designed"
    differences = []
    for field in study.fields():
        baselines = [group for group in field if by_chance(group)]
        for group in (group for group in field if not by_chance(group) and group.setup.method.kind != "input"):
            alike = [one for one in baselines if one.setup.method.kind == group.setup.method.kind] or baselines
            for one in alike:
                seeds = f"{len(one.runs)} seed" + "s" * (len(one.runs) > 1)
                label = f"{one.setup.method.name} ({seeds}) − {group.setup.method.name}, {place(one, group)}"
                differences.append((label, study.mean_difference(one, group)))
    lines = tested(differences)
    if not lines:
        words = ["none", *named(lambda m: m.random), *named(lambda m: not m.random and m.kind != "none")]
        return Finding(claim, missing=study.command(*words, rivals=True) + " --seed 0 1 2 3 4")
    return Finding(claim, verdict(lines), lines)


def no_winner(study: Study) -> Finding:
    """For every method, the benchmark, model and ratio where another one beats it most surely."""
    claim = "2. No method is best everywhere: each is beaten on some model, ratio or benchmark"
    duels: list[tuple[str, str, str, Estimate]] = []
    for one, other, name in study.duels():
        difference = study.difference(one, other, name)
        duels.append((one.setup.method.name, other.setup.method.name, f"{name}, {place(one, other)}", difference))
    if not duels:
        return Finding(claim, missing=study.command(*named(lambda m: m.kind != "none", 3), rivals=True))
    family = tested((f"{one} − {other}, {where}", difference) for one, other, where, difference in duels)
    lost: dict[str, list[Line]] = {name: [] for duel in duels for name in duel[:2]}
    for duel, line in zip(duels, family, strict=True):
        lost[duel[0] if line.difference.value < 0 else duel[1]].append(line)
    lines = [min(found, key=lambda line: line.p) for found in lost.values() if found]
    unbeaten = [name for name, found in lost.items() if not any(line.sign for line in found)]
    summary = f"undecided: never significantly beaten are {', '.join(unbeaten)}" if unbeaten else "holds"
    left = sum(line.test is None for line in family)
    counts = f"{len(lost)} methods, {len(family)} comparisons" + f", {left} not tested, with too few images" * bool(
        left
    )
    return Finding(claim, untested(family) or f"{summary} ({counts})", lines)


def kinds(study: Study) -> Finding:
    """Means over the methods of each kind, in pairs of kinds."""
    claim = "3. Where a method prunes matters: hybrid over single, before the language model over inside it"
    order = ("hybrid", "pre-llm", "intra-llm")
    differences = []
    for field in study.fields():
        designed = [group for group in field if not by_chance(group)]
        names = common(designed) if designed else []
        means: dict[str, Estimate] = {}
        for kind in order:
            members = [group for group in designed if group.setup.method.kind == kind]
            if members and names:
                means[kind] = mean([study.comparison.average(group, names) for group in members])
        for one, other in combinations(means, 2):
            differences.append((f"{one} − {other}, {place(*designed)}", means[one] - means[other]))
    lines = tested(differences)
    if not lines:
        words = [name for kind in order for name in _designed(kind, 2)]
        return Finding(claim, missing=study.command(*words, rivals=True))
    return Finding(claim, verdict(lines), lines)


def abilities(study: Study) -> Finding:
    """Change against the un-pruned model per ability; the one that falls most minus each other."""
    claim = "4. Abilities suffer differently: one falls most, another hardly"
    falls: dict[str, list[Estimate]] = {}
    for group in study.pruned:
        names: dict[str, list[str]] = {}
        for name, entry in group.scores.items():
            names.setdefault(entry.ability, []).append(name)
        relative = {ability: study.comparison.relative(group, members) for ability, members in names.items()}
        if len(relative) > 1 and None not in relative.values():
            for ability, estimate in relative.items():
                if estimate is not None:
                    falls.setdefault(ability, []).append(estimate)
    most = max(map(len, falls.values()), default=0)
    kept = {ability: mean(found) for ability, found in falls.items() if len(found) == most}
    if len(kept) < 2:
        return Finding(claim, missing=study.command("none", *named(lambda m: m.kind != "none" and not m.random)))
    worst = min(kept, key=lambda ability: kept[ability].value)
    family = tested(
        (f"{one} − {other}, in % of the un-pruned score", kept[one] - kept[other])
        for other in sorted(kept)
        for one in sorted(kept)
        if one > other
    )
    lines = [line for line in family if worst in line.label.partition(",")[0].split(" − ")]
    surely = sum(bool(line.sign) for line in lines)
    left = ", ".join(f"{a} {kept[a].value:.1f} %" for a in sorted(kept, key=lambda a: kept[a].value))
    summary = f"{worst} falls most, significantly more than {surely} of {len(lines)} others. Left: {left}"
    return Finding(claim, untested(family) or summary, lines)


def ratios(study: Study) -> Finding:
    """Average at one ratio minus that at the next lower one; share of variance due to ratio minus due to method."""
    claim = "5. The pruning ratio dominates: fewer tokens cost more accuracy, whatever the method"
    differences: list[tuple[str, Estimate | None]] = []
    for ladder in study.by(_but_for_ratio):
        steps = sorted(ladder, key=lambda group: -group.setup.ratio)
        for high, low in pairwise(steps):
            label = f"{high.setup.method.name}: {high.setup.ratio:g} − {low.setup.ratio:g}, {high.runs[0].model.name}"
            differences.append((label, study.mean_difference(high, low)))
    lines = tested([*differences, *_variance(study)])
    if not lines:
        words = [group.setup.method.name for group in study.pruned[:3]] or named(lambda m: m.kind != "none")
        return Finding(claim, missing=study.command(*dict.fromkeys(words), ratios="0.111 0.222 0.333"))
    return Finding(claim, verdict(lines), lines)


def across_models(study: Study) -> Finding:
    """Kendall's tau between the methods' averages on two models."""
    claim = "6. Trends agree across models: methods rank alike"
    differences = []
    for field in study.by(lambda group: (group.setup.ratio, group.setup.protocol, group.setup.limit)):
        models: dict[str, dict[object, SeedGroup]] = {}
        for group in field:
            models.setdefault(group.settings, {})[_method(group)] = group
        for one, other in combinations(models.values(), 2):
            methods = equal_methods([one, other])
            names = common([group[method] for group in (one, other) for method in methods]) if methods else []
            if len(methods) >= 3 and names:
                averages = [study.comparison.average(side[m], names) for side in (one, other) for m in methods]
                sides = " and ".join(group[methods[0]].runs[0].model.name for group in (one, other))
                label = f"tau (-100 to 100) of {len(methods)} methods on {sides}, ratio {field[0].setup.ratio:g}"
                differences.append((label, jointly(_tau, averages, (-100.0, 100.0))))
    lines = tested(differences)
    if not lines:
        missing = study.command(*named(lambda m: m.kind != "none", 3), rivals=True) + ", and again with another --model"
        return Finding(claim, missing=missing)
    return Finding(claim, verdict(lines), lines)


def stages(study: Study) -> Finding:
    """Every part alone minus the composition, at the same total ratio."""
    claim = "7. One stage beats two: a composition does worse than its parts alone (section 4.3)"
    differences = []
    for field in study.fields():
        for group in field:
            members = parts(group)
            for alone in field if len(members) > 1 else []:
                if alone.setup.method.name in members:
                    label = f"{alone.setup.method.name} − {group.setup.method.name}, {place(alone, group)}"
                    differences.append((label, study.mean_difference(alone, group)))
    lines = tested(differences)
    if not lines:
        before, inside = (_designed(kind, 1) for kind in ("pre-llm", "intra-llm"))
        words = [*before, *inside, "+".join(before + inside)]
        return Finding(claim, missing=study.command(*words, rivals=True))
    return Finding(claim, verdict(lines), lines)


def sizes(study: Study) -> Finding:
    """Share of its un-pruned score that the larger model of a family keeps minus the share that the smaller keeps."""
    claim = "8. Larger models lose less (section 4.3)"
    differences, unequal = [], []
    for field in study.by(
        lambda group: (group.runs[0].model.family, _method(group), group.setup.ratio, group.setup.protocol)
    ):
        sized = [group for group in field if group.runs[0].model.parameters]
        ordered = sorted(sized, key=lambda group: group.runs[0].model.parameters or 0)
        for small, large in pairwise(ordered):
            names = common([small, large])
            kept = [study.comparison.relative(group, names) if names else None for group in (large, small)]
            if kept[0] is not None and kept[1] is not None and small.setup.weights != large.setup.weights:
                models = " − ".join(group.runs[0].model.name for group in (large, small))
                label = f"{models}, {place(large, method=True).partition(', ')[2]}"
                tokens = [visual_tokens(group, names) for group in (large, small)]
                if agree(*tokens):
                    differences.append((label, kept[0] - kept[1]))
                else:
                    unequal.append(f"{label} ({' and '.join(map(_tokens, tokens))} visual tokens per layer)")
    lines = tested(differences)
    apart = f"; not tested, as budgets differ or are unknown: {', '.join(unequal)}" * bool(unequal)
    if not lines:
        missing = study.command("none", *named(lambda m: m.kind != "none")) + ", and with a larger model of its family"
        return Finding(claim, missing=missing + apart)
    return Finding(claim, verdict(lines) + apart, lines)


FINDINGS: tuple[Callable[[Study], Finding], ...] = (
    *(random_baseline, no_winner, kinds, abilities, ratios, across_models, stages, sizes),
    *(horizon, hard_rows),
)
"""In the order of section 4.2 of the paper, those of 4.3, and claims of others."""


def _designed(kind: str, count: int) -> list[str]:
    """Return some registered methods of a kind that do not choose at random."""
    return named(lambda method: method.kind == kind and not method.random, count)


def _tokens(budget: float | None) -> str:
    """Return a budget in words."""
    return "unknown" if budget is None else f"{budget:.1f}"


def _method(group: SeedGroup) -> object:
    """Return a key that a method has on every model: its name and the fields that were set."""
    method = group.setup.method
    return method.name, tuple(sorted((key, str(value)) for key, value in method.passed.items()))


def _but_for_ratio(group: SeedGroup) -> object:
    return group.settings, _method(group), group.setup.protocol


def _tau(values: Sequence[float | Array]) -> Array:
    """Return Kendall's tau-a of the first half of some values and the second, in percent."""
    half = len(values) // 2
    first, second = values[:half], values[half:]
    signs = [np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i, j in combinations(range(half), 2)]
    return np.asarray(100 * np.mean(signs, axis=0))


def _variance(study: Study) -> list[tuple[str, Estimate | None]]:
    """Return the variance due to the ratio minus that due to the method, in percent, where all pairs of them ran."""
    found: list[tuple[str, Estimate | None]] = []
    for field in study.by(lambda group: (group.settings, group.setup.protocol)):
        columns: dict[float, dict[object, SeedGroup]] = {}
        for group in field:
            columns.setdefault(group.setup.ratio, {})[_method(group)] = group
        methods = equal_methods(list(columns.values()))
        cells = [columns[ratio][method] for method in methods for ratio in sorted(columns)]
        names = common(cells) if cells else []
        if len(methods) < 2 or len(columns) < 2 or not names:
            continue
        share = partial(_shares, methods=len(methods))
        averages = [study.comparison.average(cell, names) for cell in cells]
        label = f"% of variance due to the ratio − due to the method, {field[0].runs[0].model.name}"
        found.append((label, jointly(share, averages, (-100.0, 100.0))))
    return found


def _shares(values: Sequence[float | Array], methods: int) -> Array:
    """Return the variance due to the ratio minus that due to the method, in percent of all, of methods x ratios."""
    table = np.array(values)
    table = table.reshape(methods, -1, *table.shape[1:])
    off = table - table.mean((0, 1))
    by_ratio = methods * (off.mean(0) ** 2).sum(0)
    by_method = table.shape[1] * (off.mean(1) ** 2).sum(0)
    return np.asarray(100 * (by_ratio - by_method) / np.maximum((off**2).sum((0, 1)), 1e-12))
