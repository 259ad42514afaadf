"""Checks of single decisions: the return value of `select`, its view, its arithmetic."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from uniprune.conformance.check_result import CheckResult, failed, judged, passed, reported, skipped
from uniprune.conformance.method_under_test import RATIOS, MethodUnderTest
from uniprune.conformance.recording import RecordedDecision, copy_of
from uniprune.engine.decisions import batched
from uniprune.pruning.base import Selection
from uniprune.pruning.view_batch import ViewBatch

HALF = (torch.bfloat16, torch.float16)
ARITHMETIC = {
    *("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "matmul", "einsum", "add", "sub", "mul", "div", "pow", "exp"),
    *("log", "sqrt", "rsqrt", "sum", "mean", "var", "std", "cumsum", "linalg_vector_norm", "norm", "_softmax"),
    *("_log_softmax", "softmax", "_cdist_forward", "_euclidean_dist", "sigmoid", "tanh", "var_mean"),
}
"""Operators that round their result; copies, casts and gathers do not."""
FACTOR = 4.0
"""A power of two, so that scaling rounds nothing."""


def runs(method: MethodUnderTest) -> CheckResult:
    """`select` raises no exception, from one token kept to all but one."""
    errors = [error for ratio in RATIOS for error in method.recording(ratio).errors]
    return judged([f"{type(error).__name__}: {error}" for error in errors], f"{len(method.decisions)} decisions")


def well_formed(method: MethodUnderTest) -> CheckResult:
    """Indices are one-dimensional integer tensors; replacement tokens are finite, one row per index."""
    return _judge(method, _form)


def exact_count(method: MethodUnderTest) -> CheckResult:
    """Exactly the requested number of tokens is kept; a method that chooses its own number declares it."""
    exact = [decision for decision in method.decisions if decision.pruner.exact]
    problems = [
        f"{len(d.picks)} indices where {d.keep} of {len(d.view.tokens)} were requested"
        for d in exact
        if len(d.picks) != d.keep
    ]
    if problems or exact:
        return judged(problems, f"{len(exact)} decisions")
    if not method.decisions:
        return skipped("select was never called")
    shares = [f"{method.kept_share(ratio):.0%} at ratio {ratio:g}" for ratio in RATIOS]
    return reported("chooses its own number, on average over layers " + ", ".join(shares))


def unique(method: MethodUnderTest) -> CheckResult:
    """No token is kept twice."""
    return _judge(method, lambda d: len(d.picks) != len(set(d.picks)) and f"{len(d.picks)} indices repeat a token")


def in_range(method: MethodUnderTest) -> CheckResult:
    """Indices are those of the view's tokens, not positions in the prompt."""

    def outside(d: RecordedDecision) -> str | bool:
        low, high, last = min(d.picks, default=0), max(d.picks, default=0), len(d.view.tokens) - 1
        return (low < 0 or high > last) and f"indices from {low} to {high}; expected 0 to {last}"

    return _judge(method, outside)


def in_place(method: MethodUnderTest) -> CheckResult:
    """An unchanged token stays in its place; a method that moves tokens declares it."""

    def moved(d: RecordedDecision) -> str | bool:
        if not (isinstance(d.returned, Selection) and isinstance(d.returned.tokens, Tensor) and d.picks):
            return False
        rows, own = d.returned.tokens.to(d.view.tokens.dtype), d.view.tokens[d.indices]
        foreign = (rows[:, None] == d.view.tokens).all(2).any(1) & (rows != own).any(1)
        return bool(foreign.any()) and f"{int(foreign.sum())} of {len(rows)} tokens are in the place of another"

    if method.decisions and not all(d.pruner.in_place for d in method.decisions):
        return reported("moves tokens, as it declares")
    return _judge(method, moved)


def follows_the_ratio(method: MethodUnderTest) -> CheckResult:
    """A larger ratio never leaves fewer tokens, and the largest leaves more than the smallest."""
    if not method.stages(RATIOS[0]):
        return skipped("prunes nothing")
    shares = [method.kept_share(ratio) for ratio in RATIOS]
    if any(map(math.isnan, shares)):
        return skipped("no result after the failure above")
    detail = "average over layers " + " ".join(f"{share:.0%}" for share in shares)
    if method.adaptive:
        return reported(f"{detail} at ratios " + " ".join(f"{ratio:g}" for ratio in RATIOS))
    return passed(detail) if shares == sorted(shares) and shares[0] < shares[-1] else failed(detail)


def view_untouched(method: MethodUnderTest) -> CheckResult:
    """`select` changes nothing in the view but its scratch."""
    return _judge(method, lambda d: bool(d.changed) and f"changed view.{', view.'.join(d.changed)}")


def scale_invariance(method: MethodUnderTest) -> CheckResult:
    """Features multiplied by four lead to the same picks, if the method declares `scale_invariant`."""
    declared = [d for d in method.recording().decisions if d.pruner.scale_invariant]
    if not declared:
        return skipped("not declared")
    changed = 0
    for decision in declared:
        scaled: Any = ScaledVision(decision.view.vision)
        changed += decision.again(tokens=decision.view.tokens * FACTOR, vision=scaled).picks != decision.picks
    return judged([f"{changed} of {len(declared)} decisions change"] * bool(changed), f"{len(declared)} decisions")


def float32_scores(method: MethodUnderTest) -> CheckResult:
    """Scores are computed in float32 or wider even when the tokens arrive in bfloat16."""
    with HalfArithmetic() as seen:
        for pruner, passage in method.recording().passages:
            halves = {name: getattr(passage, name).bfloat16() for name in ("entering", "leaving")}
            pruner.look(dataclasses.replace(passage, **halves))
        for decision in method.recording().decisions:
            view = decision.view
            decision.again(tokens=view.tokens.bfloat16(), prompt=view.prompt.bfloat16(), text=view.text.bfloat16())
    if not method.recording().decisions:
        return skipped("select was never called")
    return judged([f"{', '.join(sorted(seen.names))} in half precision"] * bool(seen.names))


def both_forms(method: MethodUnderTest) -> CheckResult:
    """`select_batch`, if there is one, keeps of each view what `select` keeps."""
    sizes: dict[Any, list[RecordedDecision]] = {}
    for decision in method.decisions:
        if batched(decision.pruner):
            key = id(decision.pruner), decision.view.layer, decision.keep, len(decision.view.tokens)
            sizes.setdefault(key, []).append(decision)
    problems, compared = [], 0
    for alike in (alike for alike in sizes.values() if len(alike) > 1):
        together = alike[0].pruner.select_batch(ViewBatch([copy_of(one.view) for one in alike]), alike[0].keep)
        if together is None:  # one by one, as for views that differ
            continue
        answer = together if isinstance(together, Selection) else Selection(together)
        compared += len(alike)
        for number, one in enumerate(alike):
            tokens = None if answer.tokens is None else answer.tokens[number]
            problems += _different(one, answer.indices[number], tokens)
    if not compared:
        return skipped("no select_batch, or it never applies")
    return judged(problems, f"{compared} decisions")


def _different(decision: RecordedDecision, indices: Tensor, tokens: Tensor | None) -> list[str]:
    """Return the difference of an answer, given as a part of a batch, from a recorded one."""
    if sorted(indices.tolist()) != decision.picks:
        return [f"at layer {decision.view.layer} other tokens are kept than by select()"]
    returned = decision.returned.tokens if isinstance(decision.returned, Selection) else None
    if (returned is None) != (tokens is None):
        return ["replacement tokens in one form only"]
    if returned is None or tokens is None:
        return []
    order, own = indices.argsort(), decision.indices.argsort()
    same = torch.allclose(tokens[order].float(), returned[own].float(), atol=1e-5, rtol=1e-4)
    return [] if same else ["other replacement tokens than by select()"]


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
    """A dispatch mode that collects the names of operators with half-precision results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not typed
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        if name in ARITHMETIC and isinstance(result, Tensor) and result.dtype in HALF:
            self.names.add(name)
        return result


def _judge(method: MethodUnderTest, problem: Callable[[RecordedDecision], str | bool]) -> CheckResult:
    """Fail with the first problem of any decision."""
    if not method.decisions:
        return skipped("select was never called")
    found = [text for decision in method.decisions if isinstance(text := problem(decision), str)]
    return judged(found, f"{len(method.decisions)} decisions")


def _form(decision: RecordedDecision) -> str | bool:
    indices = decision.indices
    if not isinstance(indices, Tensor):
        return f"{type(indices).__name__} instead of a tensor of indices"
    if indices.dim() != 1 or indices.dtype == torch.bool or indices.is_floating_point():
        return f"{indices.dtype} of shape {tuple(indices.shape)}; expected integers of one dimension"
    tokens = decision.returned.tokens if isinstance(decision.returned, Selection) else None
    if tokens is None:
        return False
    wanted = (len(indices), decision.view.tokens.shape[1])
    if tuple(tokens.shape) != wanted:
        return f"replacement tokens of shape {tuple(tokens.shape)}; expected {wanted}"
    return not bool(tokens.isfinite().all()) and "replacement tokens contain NaN or infinity"
