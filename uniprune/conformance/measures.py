"""Measurements that are reported without judgement."""

from __future__ import annotations

import statistics

import torch

from uniprune.conformance.check_result import CheckResult, reported, skipped
from uniprune.conformance.method_under_test import RATIO, MethodUnderTest
from uniprune.engine import PromptInfo, prune
from uniprune.engine.timer import Timer

LARGE = (24, 24)
REPEATS = 3


def bfloat16(method: MethodUnderTest) -> CheckResult:
    """Share of picks that are the same if the model runs in bfloat16 instead of float32."""
    one, other = method.baseline.picks, method.variant(dtype=torch.bfloat16).run().picks
    pairs = [(set(a), set(b)) for name in one if one[name] for a, b in zip(one[name][-1], other[name][-1], strict=True)]
    total = sum(len(a) for a, _ in pairs)
    if not total:
        return skipped("picks nothing")
    return reported(f"{sum(len(a & b) for a, b in pairs) / total:.0%} of the picks are the same")


@torch.no_grad()
def cost(method: MethodUnderTest) -> CheckResult:
    """Milliseconds that pruning adds to the prefill of one image of 576 tokens or more."""
    if not method.stages():
        return skipped("prunes nothing")
    large = method.variant(size=LARGE, batch=1)
    prompt = large.prompt("large")
    inputs, times = large.inputs([prompt]), []
    with Timer(large.adapter) as timer, prune(large.model, large.at(RATIO), timer=timer) as session:
        for _ in range(REPEATS + 1):
            session.samples = (PromptInfo(prompt.name, torch.tensor(prompt.question)),)
            large.model(**inputs, use_cache=True)
            times.append(timer.sample().method)
    return reported(f"{1000 * statistics.median(times[1:]):.1f} ms on the {large.model.device.type}")
