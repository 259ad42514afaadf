"""Checks that decisions depend on nothing else and have no side effects."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import torch

from uniprune.conformance.check_result import CheckResult, failed, judged, skipped
from uniprune.conformance.method_under_test import RATIO, MethodUnderTest, PrefillResult
from uniprune.conformance.recording import copy_of, decide
from uniprune.conformance.state import changes, scrambled_randomness, snapshot
from uniprune.pruning.base import Pruner

NEAR = 1e-3
"""Largest difference of logits by padding, relative to their largest magnitude."""


def repeatable(method: MethodUnderTest) -> CheckResult:
    """The same sample gives the same picks and logits again, whatever was drawn at random before (resuming)."""
    with scrambled_randomness(1):
        changed = [d for d in method.recording().decisions if d.again().picks != d.picks]
        if changed:
            return failed("a repeated decision differs")
        again = method.run()
    equal = torch.equal(method.baseline.logits, again.logits)
    problems = different(method.baseline, again)
    return judged([*problems, *["logits differ"] * (not equal)])


def seeds(method: MethodUnderTest) -> CheckResult:
    """Another seed leads to other picks if, and only if, the method declares `random`."""
    changed: dict[type[Pruner], list[bool]] = {}
    for decision in method.recording().decisions:
        other = dataclasses.replace(decision.pruner, seed=decision.pruner.seed + 1)
        view = dataclasses.replace(copy_of(decision.view), generator=torch.Generator().manual_seed(other.seed))
        changed.setdefault(type(other), []).append(decide(other, view, decision.keep).picks != decision.picks)
    problems = []
    for kind, differs in changed.items():
        if any(differs) and not kind.random:
            problems.append(f"{kind.__name__} keeps other tokens under another seed; declare random = True")
        if kind.random and not any(differs):
            problems.append(f"{kind.__name__} declares random, but keeps the same tokens under another seed")
    return judged(problems) if changed else skipped("prunes nothing")


def sample_order(method: MethodUnderTest) -> CheckResult:
    """A sample's picks do not depend on the samples before it."""
    backwards = method.run(prompts=method.prompts[::-1])
    return judged(different(method.baseline, backwards))


def batch(method: MethodUnderTest) -> CheckResult:
    """A row of a left-padded batch of three has the same picks and logits as alone."""
    alone, together = (method.baseline if method.batch == n else method.variant(batch=n).run() for n in (1, 3))
    gap = float((alone.logits - together.logits).abs().max() / alone.logits.abs().max())
    problems = different(alone, together)
    return judged([*problems, *[f"logits differ by {gap:.1e} of their range"] * (gap > NEAR)])


def several_images(method: MethodUnderTest) -> CheckResult:
    """Before the language model, an image's picks do not change with the other image of its prompt."""
    stages = method.stages()
    if not stages or stages[0].layer > 0:
        return skipped("decides inside the language model, where images have mixed" if stages else "prunes nothing")
    if method.pruner.scope != "image":
        return skipped(f'scope="{method.pruner.scope}" does not decide image by image')
    both = method.prompts[1]
    other = method.prompt("other", images=2)
    mixed = {
        0: (both.images[0], other.images[1]),
        1: (other.images[0], both.images[1]),
    }
    first = method.run(prompts=[both]).picks[both.name][0]
    problems = []
    for image, pictures in mixed.items():
        prompt = type(both)(both.ids, both.question, pictures, both.name)
        if method.run(prompts=[prompt]).picks[both.name][0][image] != first[image]:
            problems.append(f"image {image + 1} of 2 changes with the other one")
    return judged(problems)


def question(method: MethodUnderTest) -> CheckResult:
    """The picks are those of the prompt without its question, unless the method declares `prompt_aware`."""
    stages = method.stages()
    if not stages:
        return skipped("prunes nothing")
    if any(stage.pruner.prompt_aware for stage in stages):
        return skipped("looks at the question")
    prompts = [replace(one, ids=one.ids[: -len(one.question)], question=()) for one in method.prompts]
    return judged(different(method.baseline, method.run(prompts=prompts)))


def attention_kernels(method: MethodUnderTest) -> CheckResult:
    """Eager and fused attention lead to the same picks."""
    other = "eager" if method.attention != "eager" else "sdpa"
    return judged(different(method.baseline, method.variant(attention=other).run()))


def random_state(method: MethodUnderTest) -> CheckResult:
    """The random states of torch, NumPy and Python are unchanged."""
    names = _left(method, "random")
    return judged([f"changed: {', '.join(names)}"] * bool(names), f"{len(method.decisions)} decisions")


def process_state(method: MethodUnderTest) -> CheckResult:
    """Torch's settings, environment variables and working directory are unchanged."""
    names = _left(method, "process")
    names += changes(method.before, snapshot(method.model, method.at(RATIO)), "environment")
    return judged([f"changed: {', '.join(names)}"] * bool(names), f"{len(method.decisions)} decisions")


def model_untouched(method: MethodUnderTest) -> CheckResult:
    """Weights, buffers, hooks and modes of the model are unchanged."""
    return _unchanged(method, "model")


def method_untouched(method: MethodUnderTest) -> CheckResult:
    """The method object, its class and its module are unchanged: a method keeps no state."""
    return _unchanged(method, "method")


def different(one: PrefillResult, other: PrefillResult) -> list[str]:
    """Return a problem if two runs of the same prompts kept different tokens, else nothing."""
    changed = [name for name in one.picks if one.picks[name] != other.picks[name]]
    return [f"{len(changed)} of {len(one.picks)} samples keep other tokens"] * bool(changed)


def _left(method: MethodUnderTest, group: str) -> list[str]:
    """Return the names of what recorded decisions left otherwise than it was."""
    return list(dict.fromkeys(name for decision in method.decisions for name in decision.left.get(group, ())))


def _unchanged(method: MethodUnderTest, group: str) -> CheckResult:
    """Fail with the names of what changed since the construction of `method`, which has run since."""
    prompts = len(method.baseline.rows)
    changed = changes(method.before, snapshot(method.model, method.at(RATIO)), group)
    return judged([f"changed: {', '.join(changed)}"] * bool(changed), f"after {prompts} prompts and more")
