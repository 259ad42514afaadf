"""Checks of what a decision must not depend on, and of what must not change because of it."""

from __future__ import annotations

import dataclasses

import torch

from uniprune.conformance.state import changes, scrambled_randomness, snapshot
from uniprune.conformance.subject import RATIO, MethodUnderTest, PrefillResult
from uniprune.conformance.verdicts import CheckResult, judged, skipped
from uniprune.conformance.witness import ask, pristine
from uniprune.pruning.base import Pruner

NEAR = 1e-3
"""Largest difference of logits that padding may cause, relative to their largest magnitude."""


def repeatable(subject: MethodUnderTest) -> CheckResult:
    """The same sample gives the same picks and logits again, whatever was drawn at random before (resuming)."""
    with scrambled_randomness(1):
        again = subject.run()
    changed = [d for d in subject.witness().decisions if d.again().picks != d.picks]
    equal = torch.equal(subject.baseline.logits, again.logits)
    problems = different(subject.baseline, again)
    return judged([*problems, *["a decision asked again changes"] * bool(changed), *["logits differ"] * (not equal)])


def seeds(subject: MethodUnderTest) -> CheckResult:
    """Another seed leads to other picks where the method declares `random`, and only there."""
    changed: dict[type[Pruner], list[bool]] = {}
    for decision in subject.witness().decisions:
        other = dataclasses.replace(decision.pruner, seed=decision.pruner.seed + 1)
        view = dataclasses.replace(pristine(decision.view), generator=torch.Generator().manual_seed(other.seed))
        changed.setdefault(type(other), []).append(ask(other, view, decision.keep).picks != decision.picks)
    problems = []
    for method, differs in changed.items():
        if any(differs) and not method.random:
            problems.append(f"{method.__name__} keeps other tokens under another seed; declare random = True")
        if method.random and not any(differs):
            problems.append(f"{method.__name__} declares random, but keeps the same tokens under another seed")
    return judged(problems) if changed else skipped("prunes nothing")


def sample_order(subject: MethodUnderTest) -> CheckResult:
    """A sample's picks do not depend on the samples before it."""
    backwards = subject.run(prompts=subject.prompts[::-1])
    return judged(different(subject.baseline, backwards))


def batch(subject: MethodUnderTest) -> CheckResult:
    """A row of a left-padded batch of three gives the picks and logits it gives alone."""
    alone, together = (subject.variant(batch=size).run() for size in (1, 3))
    gap = float((alone.logits - together.logits).abs().max() / alone.logits.abs().max())
    problems = different(alone, together)
    return judged([*problems, *[f"logits differ by {gap:.1e} of their range"] * (gap > NEAR)])


def several_images(subject: MethodUnderTest) -> CheckResult:
    """Before the language model, an image's picks do not change with the other image of its prompt."""
    stages = subject.stages()
    if not stages or stages[0].layer > 0:
        return skipped("decides inside the language model, where images have mixed" if stages else "prunes nothing")
    if subject.pruner.scope != "image":
        return skipped(f'scope="{subject.pruner.scope}" does not decide image by image')
    both = subject.prompts[1]
    other = subject.prompt("other", images=2)
    mixed = {
        0: (both.pictures[0], other.pictures[1]),
        1: (other.pictures[0], both.pictures[1]),
    }
    first = subject.run(prompts=[both]).picks[both.name][0]
    problems = []
    for image, pictures in mixed.items():
        prompt = type(both)(both.ids, both.question, pictures, both.name)
        if subject.run(prompts=[prompt]).picks[both.name][0][image] != first[image]:
            problems.append(f"image {image + 1} of 2 changes with the other one")
    return judged(problems)


def attention_kernels(subject: MethodUnderTest) -> CheckResult:
    """Eager and fused attention lead to the same picks."""
    other = "eager" if subject.attention != "eager" else "sdpa"
    return judged(different(subject.baseline, subject.variant(attention=other).run()))


def random_state(subject: MethodUnderTest) -> CheckResult:
    """The random numbers of torch, NumPy and Python go on as if nothing had happened."""
    return _unchanged(subject, "random")


def process_state(subject: MethodUnderTest) -> CheckResult:
    """Gradient mode, default precision, threads, environment variables and working directory stay."""
    return _unchanged(subject, "process")


def model_untouched(subject: MethodUnderTest) -> CheckResult:
    """Weights, buffers, hooks and modes of the model are as before."""
    return _unchanged(subject, "model")


def method_untouched(subject: MethodUnderTest) -> CheckResult:
    """The method object, its class and its module hold what they held before: it remembers nothing."""
    return _unchanged(subject, "method")


def different(one: PrefillResult, other: PrefillResult) -> list[str]:
    """What to say when two runs of the same samples kept different tokens; empty when they did not."""
    changed = [name for name in one.picks if one.picks[name] != other.picks[name]]
    return [f"{len(changed)} of {len(one.picks)} samples keep other tokens"] * bool(changed)


def _unchanged(subject: MethodUnderTest, group: str) -> CheckResult:
    """Failed with the names of what differs since the subject was made: the method has run since."""
    prompts = len(subject.baseline.rows)
    changed = changes(subject.before, snapshot(subject.model, subject.at(RATIO)), group)
    return judged([f"changed: {', '.join(changed)}"] * bool(changed), f"after {prompts} prompts and more")
