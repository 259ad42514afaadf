"""Checks of single decisions: what `select` returned, and what it did on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from uniprune.conformance.subject import RATIOS, MethodUnderTest
from uniprune.conformance.verdicts import CheckResult, failed, judged, passed, reported, skipped
from uniprune.conformance.witness import RecordedDecision
from uniprune.pruning.base import Selection

HALF = (torch.bfloat16, torch.float16)
ARITHMETIC = {
    *("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "matmul", "einsum", "add", "sub", "mul", "div", "pow", "exp"),
    *("log", "sqrt", "rsqrt", "sum", "mean", "var", "std", "cumsum", "linalg_vector_norm", "norm", "_softmax"),
    *("_log_softmax", "softmax", "_cdist_forward", "_euclidean_dist", "sigmoid", "tanh", "var_mean"),
}
"""Operators whose rounding a half-precision result carries; copies, casts and gathers are not among them."""
FACTOR = 4.0
"""A power of two, so that scaling rounds nothing."""


def runs(subject: MethodUnderTest) -> CheckResult:
    """It answers every question without an exception, from one token kept to all but one."""
    errors = [error for ratio in RATIOS for error in subject.witness(ratio).errors]
    return judged([f"{type(error).__name__}: {error}" for error in errors], f"{len(subject.decisions)} decisions")


def well_formed(subject: MethodUnderTest) -> CheckResult:
    """Answers are one-dimensional integer tensors; replacement tokens are finite, one row per index."""
    return _judge(subject, _form)


def exact_count(subject: MethodUnderTest) -> CheckResult:
    """Exactly the tokens asked for are kept; a method that chooses its own number declares it."""
    asked = [decision for decision in subject.decisions if decision.pruner.exact]
    problems = [
        f"{len(d.picks)} indices where {d.keep} of {len(d.view.tokens)} were asked for"
        for d in asked
        if len(d.picks) != d.keep
    ]
    if problems or asked:
        return judged(problems, f"{len(asked)} decisions")
    if not subject.decisions:
        return skipped("never asked")
    shares = [f"{subject.left(ratio):.0%} at ratio {ratio:g}" for ratio in RATIOS]
    return reported("chooses its own number, on average over layers " + ", ".join(shares))


def unique(subject: MethodUnderTest) -> CheckResult:
    """No token is kept twice."""
    return _judge(subject, lambda d: len(d.picks) != len(set(d.picks)) and f"{len(d.picks)} indices repeat a token")


def in_range(subject: MethodUnderTest) -> CheckResult:
    """Indices count the view's tokens, not positions in the prompt."""

    def outside(d: RecordedDecision) -> str | bool:
        low, high, last = min(d.picks, default=0), max(d.picks, default=0), len(d.view.tokens) - 1
        return (low < 0 or high > last) and f"indices from {low} to {high}; expected 0 to {last}"

    return _judge(subject, outside)


def in_place(subject: MethodUnderTest) -> CheckResult:
    """A token that is handed over unchanged stands in its own place; a method that moves tokens declares it."""

    def moved(d: RecordedDecision) -> str | bool:
        if not (isinstance(d.answer, Selection) and isinstance(d.answer.tokens, Tensor) and d.picks):
            return False
        rows, own = d.answer.tokens.to(d.view.tokens.dtype), d.view.tokens[d.indices]
        foreign = (rows[:, None] == d.view.tokens).all(2).any(1) & (rows != own).any(1)
        return bool(foreign.any()) and f"{int(foreign.sum())} of {len(rows)} tokens stand in the place of another"

    if subject.decisions and not all(d.pruner.in_place for d in subject.decisions):
        return reported("moves tokens, as it declares")
    return _judge(subject, moved)


def follows_the_ratio(subject: MethodUnderTest) -> CheckResult:
    """A larger ratio never leaves fewer tokens, and the largest leaves more than the smallest."""
    if not subject.stages(RATIOS[0]):
        return skipped("prunes nothing")
    shares = [subject.left(ratio) for ratio in RATIOS]
    if any(map(math.isnan, shares)):
        return skipped("no result after what failed above")
    detail = "average over layers " + " ".join(f"{share:.0%}" for share in shares)
    if subject.adaptive:
        return reported(f"{detail} at ratios " + " ".join(f"{ratio:g}" for ratio in RATIOS))
    return passed(detail) if shares == sorted(shares) and shares[0] < shares[-1] else failed(detail)


def view_untouched(subject: MethodUnderTest) -> CheckResult:
    """`select` changes nothing in the view but its scratch."""
    return _judge(subject, lambda d: bool(d.changed) and f"changed view.{', view.'.join(d.changed)}")


def scale_invariance(subject: MethodUnderTest) -> CheckResult:
    """Features multiplied by four lead to the same picks, where the method claims so (`scale_invariant`)."""
    claiming = [d for d in subject.witness().decisions if d.pruner.scale_invariant]
    if not claiming:
        return skipped("not claimed")
    changed = 0
    for decision in claiming:
        scaled: Any = ScaledVision(decision.view.vision)
        changed += decision.again(tokens=decision.view.tokens * FACTOR, vision=scaled).picks != decision.picks
    return judged([f"{changed} of {len(claiming)} decisions change"] * bool(changed), f"{len(claiming)} decisions")


def float32_scores(subject: MethodUnderTest) -> CheckResult:
    """Scores are computed in float32 or wider even when the tokens arrive in bfloat16."""
    with HalfArithmetic() as seen:
        for decision in subject.witness().decisions:
            view = decision.view
            decision.again(tokens=view.tokens.bfloat16(), prompt=view.prompt.bfloat16(), text=view.text.bfloat16())
    if not subject.witness().decisions:
        return skipped("never asked")
    return judged([f"{', '.join(sorted(seen.names))} in half precision"] * bool(seen.names))


class ScaledVision:
    """`view.vision` with larger features."""

    def __init__(self, vision: Any) -> None:
        self._vision = vision

    def features(self) -> Tensor:
        """[N, C], scaled."""
        scaled: Tensor = self._vision.features() * FACTOR
        return scaled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vision, name)


class HalfArithmetic(TorchDispatchMode):
    """Collects the names of operators that calculated in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        if name in ARITHMETIC and isinstance(result, Tensor) and result.dtype in HALF:
            self.names.add(name)
        return result


def _judge(subject: MethodUnderTest, problem: Callable[[RecordedDecision], str | bool]) -> CheckResult:
    """Failed with the first problem any decision has."""
    if not subject.decisions:
        return skipped("never asked")
    found = [text for decision in subject.decisions if isinstance(text := problem(decision), str)]
    return judged(found, f"{len(subject.decisions)} decisions")


def _form(decision: RecordedDecision) -> str | bool:
    indices = decision.indices
    if not isinstance(indices, Tensor):
        return f"{type(indices).__name__} instead of a tensor of indices"
    if indices.dim() != 1 or indices.dtype == torch.bool or indices.is_floating_point():
        return f"{indices.dtype} of shape {tuple(indices.shape)}; expected integers of one dimension"
    tokens = decision.answer.tokens if isinstance(decision.answer, Selection) else None
    if tokens is None:
        return False
    wanted = (len(indices), decision.view.tokens.shape[1])
    if tuple(tokens.shape) != wanted:
        return f"replacement tokens of shape {tuple(tokens.shape)}; expected {wanted}"
    return not bool(tokens.isfinite().all()) and "replacement tokens contain NaN or infinity"
