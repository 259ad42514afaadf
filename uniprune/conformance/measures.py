"""Numbers that are reported, not judged."""

from __future__ import annotations

import statistics

import torch

from uniprune.conformance.subject import RATIO, MethodUnderTest
from uniprune.conformance.verdicts import CheckResult, reported, skipped
from uniprune.engine import PromptInfo, prune
from uniprune.engine.timer import Timer

LARGE = (24, 24)
REPEATS = 3


def bfloat16(subject: MethodUnderTest) -> CheckResult:
    """How many picks stay the same when the whole model runs in bfloat16 instead of float32."""
    one, other = subject.baseline.picks, subject.variant(dtype=torch.bfloat16).run().picks
    pairs = [(set(a), set(b)) for name in one if one[name] for a, b in zip(one[name][-1], other[name][-1], strict=True)]
    total = sum(len(a) for a, _ in pairs)
    if not total:
        return skipped("picks nothing")
    return reported(f"{sum(len(a & b) for a, b in pairs) / total:.0%} of the picks are the same")


@torch.no_grad()
def cost(subject: MethodUnderTest) -> CheckResult:
    """Milliseconds that pruning adds to the prefill of one image of 576 tokens or more."""
    if not subject.stages():
        return skipped("prunes nothing")
    large = subject.variant(size=LARGE, batch=1)
    prompt = large.prompt("large")
    inputs, times = large.inputs([prompt]), []
    with Timer(large.layout) as timer, prune(large.model, large.at(RATIO), timer=timer) as session:
        for _ in range(REPEATS + 1):
            session.samples = (PromptInfo(prompt.name, torch.tensor(prompt.question)),)
            large.model(**inputs, use_cache=True)
            times.append(timer.sample().method)
    return reported(f"{1000 * statistics.median(times[1:]):.1f} ms on the {large.model.device.type}")
