"""Checks of the sequence in the language model: its tokens, positions and caches."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from uniprune.conformance.check_result import CheckResult, failed, judged, passed, reported, skipped
from uniprune.conformance.method_under_test import RATIO, MethodUnderTest, generate, traced, with_positions
from uniprune.engine import PromptInfo, RowReport, prune
from uniprune.errors import UnsupportedError
from uniprune.modeling.tiny import IMAGE, VIDEO, TinyPrompt
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import declared

STEPS = 3


def ratio_1(method: MethodUnderTest) -> CheckResult:
    """At ratio 1 every logit, of prompt and prediction, is bit-identical to the un-pruned model."""
    everything = method.at(1.0)
    if all(torch.equal(a, b) for a, b in zip(_logits(method, None), _logits(method, everything), strict=True)):
        return passed()
    rows = method.run(everything).rows
    share = sum(row.average_ratio for row in rows) / len(rows)
    if method.adaptive:
        return reported(f"chooses its own number: {share:.0%} of the tokens at ratio 1")
    return failed(f"logits differ; {share:.0%} of the tokens are left")


def text_kept(method: MethodUnderTest) -> CheckResult:
    """Every layer receives all text and exactly the visual tokens of the report."""
    row, cosines, _ = _trace(method, method.at(RATIO))
    wanted = [len(_survivors(method, row, layer)) for layer in range(method.depth)]
    seen = [cosines[layer].shape[1] for layer in range(method.depth)]
    return judged([f"layers receive {seen} tokens, expected {wanted}"] * (seen != wanted), f"{seen} tokens per layer")


def original_positions(method: MethodUnderTest) -> CheckResult:
    """Kept tokens keep their rotary positions."""
    if method.pruner.positions != "original":
        return skipped(f'positions="{method.pruner.positions}"')
    row, cosines, whole = _trace(method, method.at(RATIO))
    moved = [
        layer
        for layer in range(method.depth)
        if not torch.equal(cosines[layer][0], whole[layer][0][_survivors(method, row, layer)])
    ]
    return judged([f"positions differ in layers {moved}"] * bool(moved))


def compact_positions(method: MethodUnderTest) -> CheckResult:
    """`positions="compact"` renumbers from the start, or is refused by name."""
    if not method.stages():
        return skipped("prunes nothing")
    try:
        _, cosines, whole = _trace(method, with_positions(method.at(RATIO), "compact"))
    except UnsupportedError as error:
        return passed(f"refused: {str(error).split(',')[0]}")
    moved = [layer for layer, cos in cosines.items() if not torch.equal(cos[0], whole[layer][0, : cos.shape[1]])]
    return judged([f"layers {moved} are not numbered from the start"] * bool(moved), "renumbered")


def kv_lengths(method: MethodUnderTest) -> CheckResult:
    """Each layer caches the text and the tokens that the schedule declares and the report counts."""
    problems = []
    run = method.baseline
    for start, cached in zip(range(0, len(run.rows), method.batch), run.caches, strict=True):
        rows = run.rows[start : start + method.batch]
        lengths = [_cached(method, row, prompt) for row, prompt in zip(rows, method.prompts[start:], strict=False)]
        given = map(max, zip(*lengths, strict=True))
        wanted = tuple(None if held is None else count for held, count in zip(cached, given, strict=True))
        if cached != wanted:
            problems.append(f"layers cache {list(cached)} tokens, the report counts {list(wanted)}")
    if not method.adaptive:
        problems += [
            f"{row.entering} visual tokens enter the layers, the schedule declares {declared}"
            for row in run.rows
            if row.entering != (declared := _declared(method, row))
        ]
    return judged(problems, f"{list(run.caches[0])} tokens per layer")


def text_only(method: MethodUnderTest) -> CheckResult:
    """A prompt without images is unchanged, and `select` is not called."""
    prompts = [method.prompt("words", images=0)]
    calls = len(method.recording().decisions)
    kept, unpruned = method.run(method.recording(), prompts), method.unpruned(prompts)
    if len(method.recording().decisions) != calls:
        return failed("select was called for a prompt without images")
    return judged(["logits differ"] * (not torch.equal(kept.logits, unpruned.logits)))


def one_token(method: MethodUnderTest) -> CheckResult:
    """An image that is a single token works."""
    small = method.variant(size=(1, 1))
    run = small.run(prompts=[small.prompt("dot")])
    if run.rows[0].initial > 1:
        return skipped(f"the smallest image of the family has {run.rows[0].initial} tokens")
    entering = run.rows[0].entering
    if not bool(run.logits.isfinite().all()):
        return failed("logits are not finite")
    return judged([f"{entering} tokens enter the layers"] * (max(entering) > 1), f"{entering} tokens per layer")


@torch.no_grad()
def _logits(method: MethodUnderTest, pruner: Pruner | None) -> tuple[Tensor, ...]:
    """Return [B, L, V] logits of the first prompts and [B, V] logits of each greedy step."""
    inputs = method.inputs(method.prompts[: method.batch])
    with nullcontext() if pruner is None else prune(method.model, pruner):
        return method.model(**inputs).logits, *generate(method.model, inputs, STEPS).logits


@torch.no_grad()
def _trace(method: MethodUnderTest, pruner: Pruner) -> tuple[RowReport, dict[int, Tensor], dict[int, Tensor]]:
    """Return report and rotary cosines per layer of the prompt with two images, and those of the un-pruned prompt."""
    prompt = method.prompts[1]
    inputs = method.inputs([prompt])
    with traced(method.adapter.layers) as seen:
        method.model(**inputs)
    with prune(method.model, pruner) as session, traced(method.adapter.layers) as pruned:
        session.samples = (PromptInfo(prompt.name, torch.tensor(prompt.question)),)
        method.model(**inputs)
    return session.reports[0].rows[0], pruned, seen


def _survivors(method: MethodUnderTest, row: RowReport, layer: int) -> Tensor:
    """Return the positions of all text and of the visual tokens that enter `layer` by the report."""
    ids = torch.tensor(method.prompts[1].ids)
    kept = ~torch.isin(ids, torch.tensor(_placeholders(method)))
    stages = [stage for stage in row.stages if stage.layer <= layer]
    if not stages:
        return torch.arange(len(ids))
    places = (~kept).nonzero()[:, 0]
    for cells, unit in zip(stages[-1].kept, row.groups, strict=True):
        kept[places[unit.ranks[cells]]] = True
        kept[places[unit.markers]] = bool(len(cells))
    return kept.nonzero()[:, 0]


def _cached(method: MethodUnderTest, row: RowReport, prompt: TinyPrompt) -> list[int]:
    """Return the tokens that every layer should cache after the prefill."""
    visual, first = (
        list(map(sum, zip(row.entering, row.markers, strict=True))),
        method.at(RATIO).evict_from(method.depth),
    )
    if first is not None:
        visual[first:] = [min(count, visual[-1]) for count in visual[first:]]
    text = len(prompt.ids) - sum(map(prompt.ids.count, _placeholders(method)))
    return [text + count for count in visual]


def _placeholders(method: MethodUnderTest) -> list[int]:
    """Return the ids of placeholders; in families without videos, that of videos may have another meaning."""
    return [IMAGE, VIDEO] if method.adapter.videos else [IMAGE]


def _declared(method: MethodUnderTest, row: RowReport) -> list[int]:
    """Return the visual tokens that should enter every layer by the schedule, each group of the scope rounded apart."""
    counts = [declared(group.grids, method.stages(), method.depth) for group in row.groups]
    return [sum(layer) for layer in zip(*counts, strict=True)]
