"""The information horizon (arXiv 2512.07580): the layer from which on random choice equals a method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from uniprune.reports.findings.study import Finding, Line, Study, by_chance, common, named, place, tested, untested
from uniprune.results.budgets import agree, visual_tokens
from uniprune.results.comparison import SeedGroup
from uniprune.results.statistics import detectable_on, equivalence
from uniprune.results.statistics.comparisons import LEVEL


@dataclass
class Ladder:
    """A method and a random baseline before several layers.

    Attributes:
        title: both, with model and ratio.
        steps: layer -> the method's runs and the baseline's, of equal measured budget.
        unequal: layers at which their budgets differ.
    """

    title: str
    steps: dict[int, tuple[SeedGroup, SeedGroup]] = field(default_factory=dict)
    unequal: set[int] = field(default_factory=set)


def horizon(study: Study) -> Finding:
    """Method minus random choice before the same layer, for every layer that both ran at with equal budgets."""
    claim = "9. Information horizon: from some layer on, random choice equals the method (arXiv 2512.07580)"
    ladders = [ladder for ladder in _ladders(study) if len(ladder.steps) > 1]
    differences = [
        (ladder, layer, study.mean_difference(*ladder.steps[layer]))
        for ladder in ladders
        for layer in sorted(ladder.steps)
    ]
    known = [(ladder, layer, one) for ladder, layer, one in differences if one is not None]
    if not known:
        chance = named(lambda m: m.random and m.kind == "intra-llm", 1)
        words = [*named(lambda m: not m.random and m.kind == "intra-llm", 1), *chance]
        command = study.command(*words, rivals=True)
        options = [f"--layer {layer}" for layer in _proposed(study)]
        again = " and with ".join(options[1:])
        return Finding(claim, missing=f"{command} with {options[0]}" + f", and again with {again}" * bool(again))
    lines = tested((f"{ladder.title}, {_before(ladder, layer)}", one) for ladder, layer, one in known)
    tests = sum(line.test is not None for line in lines)
    details, reached = [], 0
    for ladder in ladders:
        own = [(layer, line) for (of, layer, _), line in zip(known, lines, strict=True) if of is ladder]
        equal = _equal_from(own, study.margin)
        reached += equal is not None
        details += _summary(ladder, own, equal, study.margin, tests)
    summary = f"{reached} of {len(ladders)} are equal to random choice, within {study.margin:g} points, from a layer on"
    return Finding(claim, untested(lines) or summary, lines, details=details)


def _proposed(study: Study) -> list[int]:
    """Return layers for a command: those of large models, or of the shallowest that was run."""
    layers = min((run.model.layers for group in study.comparison.groups for run in group.runs), default=32)
    usual = [layer for layer in (2, 8, 16) if layer < layers]
    return usual if len(usual) > 1 else list(dict.fromkeys((1, max(1, layers // 2), max(1, layers - 1))))


def _ladders(study: Study) -> list[Ladder]:
    """Return every method inside the language model that prunes once, with every random baseline of this kind."""
    single = [group for group in study.pruned if group.setup.method.kind == "intra-llm" and _layer(group) is not None]
    found: dict[object, Ladder] = {}
    places: dict[object, list[SeedGroup]] = defaultdict(list)
    for group in single:
        places[_site(group), _layer(group)].append(group)
    for alike in places.values():
        for one in alike:
            for other in alike:
                layer = _layer(one)
                if layer is None or by_chance(one) or not by_chance(other):
                    continue
                seeds = f"{len(other.runs)} seed" + "s" * (len(other.runs) > 1)
                title = f"{one.setup.method.name} − {other.setup.method.name} ({seeds}), {place(one)}"
                ladder = found.setdefault((_site(one), _but_for_layer(one), _but_for_layer(other)), Ladder(title))
                if agree(visual_tokens(one), visual_tokens(other)):
                    ladder.steps[layer] = (one, other)
                else:
                    ladder.unequal.add(layer)
    return list(found.values())


def _site(group: SeedGroup) -> object:
    """Return what a method and its baseline have in common: settings, ratio and protocol."""
    return group.settings, group.setup.ratio, group.setup.protocol


def _layer(group: SeedGroup) -> int | None:
    """Return the layer before which a method prunes; None if it prunes at several."""
    stages = group.setup.method.stages
    return stages[0][0] if len(stages) == 1 else None


def _but_for_layer(group: SeedGroup) -> object:
    """Return a key that a method has whatever its layer."""
    passed = group.setup.method.passed
    kept = sorted((key, str(value)) for key, value in passed.items() if key.rpartition(".")[2] != "layer")
    return group.setup.method.name, tuple(kept)


def _before(ladder: Ladder, layer: int) -> str:
    """Return `layer 8, 16.0 tokens`."""
    tokens = visual_tokens(ladder.steps[layer][0])
    return f"layer {layer}" + (f", {tokens:.1f} tokens" if tokens is not None else "")


def _equal_from(steps: Sequence[tuple[int, Line]], margin: float) -> int | None:
    """Return the first layer from which on all are equal within the margin, None if the deepest is not.

    Layers are tested in a fixed sequence, from the deepest up to the first that is not equal, so that the chance of any
    false "equal" stays 5 % without a correction.
    """
    found = None
    for layer, line in reversed(steps):
        test = equivalence(line.difference, margin)
        if test is None or not test.shown:
            return found
        found = layer
    return found


def _summary(
    ladder: Ladder, steps: Sequence[tuple[int, Line]], equal: int | None, margin: float, tests: int
) -> list[str]:
    """Return the sentences about one ladder."""
    if any(line.test is None for _, line in steps):
        return [f"{ladder.title}: not tested, too few images"]
    deepest = steps[-1][0]
    said = f"equal within {margin:g} points from layer {equal} on" if equal is not None else (
        f"not shown to be equal within {margin:g} points at layer {deepest}, the deepest"
    )  # fmt: skip
    shown = [n for n, (_, line) in enumerate(steps) if line.sign]
    silent = steps[shown[-1] + 1 :] if shown else steps
    if silent:
        said += f"; no difference shown from layer {silent[0][0]} on"
        could = [value for _, line in silent if (value := detectable_on(line.difference, level=LEVEL / tests))]
        if could:
            low, high = f"{min(could):.1f}", f"{max(could):.1f}"
            size = low if low == high else f"{low} to {high}"
            said += f", where {_rows(ladder, silent[0][0])} rows show {size} points in 80 % of cases"
    else:
        said += f"; layer {deepest}, the deepest, still differs"
    found = [f"{ladder.title}: {said}"]
    tokens = [visual_tokens(one) or 0.0 for one, _ in ladder.steps.values()]
    if not agree(min(tokens), max(tokens)):
        found.append(
            f"{ladder.title}: budgets differ between layers ({min(tokens):.1f} to {max(tokens):.1f} visual tokens per "
            "layer); --protocol average makes them equal"
        )
    if ladder.unequal:
        layers = ", ".join(map(str, sorted(ladder.unequal)))
        found.append(f"{ladder.title}: not tested at layer {layers}, as the budgets of the two differ there")
    return found


def _rows(ladder: Ladder, layer: int) -> int:
    """Return the rows of the benchmarks that both ran."""
    one, other = ladder.steps[layer]
    scores = [one.scores[name].score for name in common([one, other])]
    return sum(score.rows for score in scores if score)
