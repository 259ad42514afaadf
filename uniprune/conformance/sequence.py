"""Checks of what the language model sees: which tokens, at which positions, in which caches."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from uniprune.conformance.subject import RATIO, MethodUnderTest, generate, traced, with_positions
from uniprune.conformance.verdicts import CheckResult, failed, judged, passed, reported, skipped
from uniprune.engine import PromptInfo, RowReport, prune
from uniprune.errors import UnsupportedError
from uniprune.modeling.tiny import IMAGE, LAYERS, TinyPrompt
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import tokens_per_layer

STEPS = 3


def ratio_1(subject: MethodUnderTest) -> CheckResult:
    """Keeping everything leaves every logit, of prompt and answer, bit-identical to the un-pruned model."""
    everything = subject.at(1.0)
    if all(torch.equal(a, b) for a, b in zip(_logits(subject, None), _logits(subject, everything), strict=True)):
        return passed()
    rows = subject.run(everything).rows
    share = sum(row.average_ratio for row in rows) / len(rows)
    if subject.adaptive:
        return reported(f"chooses its own number: {share:.0%} of the tokens at ratio 1")
    return failed(f"logits differ; {share:.0%} of the tokens are left")


def text_kept(subject: MethodUnderTest) -> CheckResult:
    """Every layer sees all text and exactly the visual tokens the report says."""
    row, cosines, _ = _trace(subject, subject.at(RATIO))
    wanted = [len(_survivors(subject, row, layer)) for layer in range(LAYERS)]
    seen = [cosines[layer].shape[1] for layer in range(LAYERS)]
    return judged([f"layers see {seen} tokens, expected {wanted}"] * (seen != wanted), f"{seen} tokens per layer")


def original_positions(subject: MethodUnderTest) -> CheckResult:
    """What is kept keeps its rotary position."""
    if subject.pruner.positions != "original":
        return skipped(f'positions="{subject.pruner.positions}"')
    row, cosines, whole = _trace(subject, subject.at(RATIO))
    moved = [
        layer for layer in range(LAYERS) if not torch.equal(cosines[layer][0], whole[_survivors(subject, row, layer)])
    ]
    return judged([f"positions differ in layers {moved}"] * bool(moved))


def compact_positions(subject: MethodUnderTest) -> CheckResult:
    """`positions="compact"` renumbers from the start, or is refused by name."""
    if not subject.stages():
        return skipped("prunes nothing")
    try:
        _, cosines, whole = _trace(subject, with_positions(subject.at(RATIO), "compact"))
    except UnsupportedError as error:
        return passed(f"refused: {str(error).split(',')[0]}")
    moved = [layer for layer, cos in cosines.items() if not torch.equal(cos[0], whole[: cos.shape[1]])]
    return judged([f"layers {moved} are not numbered from the start"] * bool(moved), "renumbered")


def kv_lengths(subject: MethodUnderTest) -> CheckResult:
    """Each layer caches the text and the tokens that the schedule declares and the report counts."""
    problems = []
    run = subject.baseline
    for start, cached in zip(range(0, len(run.rows), subject.batch), run.caches, strict=True):
        rows = run.rows[start : start + subject.batch]
        lengths = [_cached(subject, row, prompt) for row, prompt in zip(rows, subject.prompts[start:], strict=False)]
        wanted = tuple(map(max, zip(*lengths, strict=True)))
        if cached != wanted:
            problems.append(f"layers cache {list(cached)} tokens, the report says {list(wanted)}")
    if not subject.adaptive:
        problems += [
            f"{row.entering} visual tokens enter the layers, the schedule declares {declared}"
            for row in run.rows
            if row.entering != (declared := _declared(subject, row))
        ]
    return judged(problems, f"{list(run.caches[0])} tokens per layer")


def text_only(subject: MethodUnderTest) -> CheckResult:
    """A prompt without images is left alone, and the method is not asked."""
    prompts = [subject.prompt("words", images=0)]
    asked = len(subject.witness().decisions)
    kept, plain = subject.run(subject.witness(), prompts), subject.plain(prompts)
    if len(subject.witness().decisions) != asked:
        return failed("the method was asked about a prompt without images")
    return judged(["logits differ"] * (not torch.equal(kept.logits, plain.logits)))


def one_token(subject: MethodUnderTest) -> CheckResult:
    """An image that is a single token works."""
    small = subject.variant(size=(1, 1))
    run = small.run(prompts=[small.prompt("dot")])
    if run.rows[0].initial > 1:
        return skipped(f"the smallest image of the family has {run.rows[0].initial} tokens")
    entering = run.rows[0].entering
    if not bool(run.logits.isfinite().all()):
        return failed("logits are not finite")
    return judged([f"{entering} tokens enter the layers"] * (max(entering) > 1), f"{entering} tokens per layer")


@torch.no_grad()
def _logits(subject: MethodUnderTest, pruner: Pruner | None) -> tuple[Tensor, ...]:
    """[B, L, V] logits of the first prompts and [B, V] of each step of their greedy answers."""
    inputs = subject.inputs(subject.prompts[: subject.batch])
    with nullcontext() if pruner is None else prune(subject.model, pruner):
        return subject.model(**inputs).logits, *generate(subject.model, inputs, STEPS).logits


@torch.no_grad()
def _trace(subject: MethodUnderTest, pruner: Pruner) -> tuple[RowReport, dict[int, Tensor], Tensor]:
    """Report of the prompt with two images, rotary cosines per layer, and [L, d] those of the whole prompt."""
    prompt = subject.prompts[1]
    inputs = subject.inputs([prompt])
    with traced(subject.layout.layers) as seen:
        subject.model(**inputs)
    with prune(subject.model, pruner) as session, traced(subject.layout.layers) as pruned:
        session.samples = (PromptInfo(prompt.name, torch.tensor(prompt.question)),)
        subject.model(**inputs)
    return session.reports[0].rows[0], pruned, seen[0][0]


def _survivors(subject: MethodUnderTest, row: RowReport, layer: int) -> Tensor:
    """Positions of all text and of the visual tokens that the report lets enter `layer`."""
    ids = torch.tensor(subject.prompts[1].ids)
    kept = ids != IMAGE
    stage = max((s for s in row.stages if s.layer <= layer), key=lambda s: s.layer, default=None)
    if stage is None:
        return torch.arange(len(ids))
    places = (~kept).nonzero()[:, 0]
    for cells, unit in zip(stage.kept, row.groups, strict=True):
        kept[places[unit.ranks[cells]]] = True
        kept[places[unit.markers]] = bool(len(cells))
    return kept.nonzero()[:, 0]


def _cached(subject: MethodUnderTest, row: RowReport, prompt: TinyPrompt) -> list[int]:
    """Tokens every layer should hold after the prefill."""
    visual, first = list(map(sum, zip(row.entering, row.markers, strict=True))), subject.at(RATIO).evict_from(LAYERS)
    if first is not None:
        visual[first:] = [min(count, visual[-1]) for count in visual[first:]]
    return [len(prompt.ids) - prompt.ids.count(IMAGE) + count for count in visual]


def _declared(subject: MethodUnderTest, row: RowReport) -> list[int]:
    """Visual tokens that should enter every layer by the schedule, each unit of the scope counted apart."""
    counts = [tokens_per_layer(len(unit.ranks), subject.stages(), LAYERS) for unit in row.groups]
    return [sum(layer) for layer in zip(*counts, strict=True)]
