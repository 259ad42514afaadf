"""Answers of methods for one token group, or for many of one size: checked by shape at once, by value later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.host_copy import Part, start_copies, to_device
from uniprune.engine.kept_tokens import Ints
from uniprune.engine.stage_groups import StageGroups
from uniprune.errors import PruningError
from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch


@dataclass(frozen=True)
class Answer:
    """A method's answer for P token groups of N tokens.

    Attributes:
        stage: the pruning point.
        samples: id of every group's prompt.
        total: N.
        indices: [P, k].
        tokens: [P, k, D] replacement tokens, if any.
    """

    stage: Stage
    samples: tuple[str, ...]
    total: int
    indices: Tensor
    tokens: Tensor | None

    @property
    def released(self) -> bool:
        """Return whether tokens take the kept places in the order of the answer."""
        return self.stage.pruner.order == "release"

    def error(self, number: int, problem: str) -> PruningError:
        """Return an error that names the method, layer, sample and problem of one group."""
        return PruningError(
            f"{type(self.stage.pruner).__name__} at layer {self.stage.layer}, sample {self.samples[number]!r}: "
            f"select() returned {problem}"
        )


def batched(pruner: Pruner) -> bool:
    """Check whether a method has the second form of `select`; one whose `select` was overridden since has not."""
    owners = [next(kind for kind in type(pruner).__mro__ if name in vars(kind)) for name in ("select_batch", "select")]
    return pruner.exact and owners[0] is not Pruner and issubclass(*owners)


def choose(stage: Stage, sample: str, view: View, total: int, keep: int, width: int) -> Answer:
    """Call the stage's method on a view of `total` tokens [D = `width`]; check types and shapes of its answer.

    Raises:
        PruningError: naming the method, layer, sample and problem.
    """
    answer = stage.pruner.select(view, keep)
    selection = answer if isinstance(answer, Selection) else Selection(answer)
    problem = _malformed(selection, (), total, width, keep if stage.pruner.exact else None)
    tokens = selection.tokens
    found = Answer(stage, (sample,), total, selection.indices, tokens)
    if problem:
        raise found.error(0, problem)
    return Answer(stage, (sample,), total, selection.indices[None], None if tokens is None else tokens[None])


def choose_batch(
    stage: Stage, samples: Sequence[str], views: ViewBatch, total: int, keep: int, width: int
) -> Answer | None:
    """Call the second form of `select`; None if the method wants the views one by one. Otherwise as `choose`."""
    answer = stage.pruner.select_batch(views, keep)
    if answer is None:
        return None
    selection = answer if isinstance(answer, Selection) else Selection(answer)
    found = Answer(stage, tuple(samples), total, selection.indices, selection.tokens)
    problem = _malformed(selection, (len(samples),), total, width, keep)
    if problem:
        raise found.error(0, f"{problem}, as select_batch()")
    return found


def joined(answers: Sequence[Answer], groups: StageGroups) -> Answer:
    """Join answers of one size, each of one of the groups; without replacement tokens every token is its own."""
    first, device = answers[0], groups.arriving.device
    if len(answers) == 1:
        return first
    indices = [one.indices for one in answers]
    if len({one.device for one in indices}) > 1:
        indices = [to_device(one, device) for one in indices]
    together, tokens = torch.cat(indices), None
    if any(one.tokens is not None for one in answers):
        own: Sequence[Tensor] = ()
        if any(one.tokens is None for one in answers):
            own = groups.chosen_tokens(to_device(together, device).long().clamp(0, groups.total - 1)).split(1)
        tokens = torch.cat([own[i] if one.tokens is None else one.tokens for i, one in enumerate(answers)])
    samples = tuple(sample for one in answers for sample in one.samples)
    return Answer(first.stage, samples, first.total, together, tokens)


@dataclass(frozen=True)
class Choice:
    """An answer on its way to the CPU, where its values are checked.

    Attributes:
        answer: the answer.
        indices: its indices [P, k].
        finite: bits of the sum of each group's tokens in float64, finite if they all are; None without tokens.
    """

    answer: Answer
    indices: Part
    finite: Part | None

    def check(self) -> None:
        """Refuse values that no answer may have.

        Raises:
            PruningError: naming the method, layer, sample and problem of the first group that has one.
        """
        for number, row in enumerate(np.sort(self.indices.read(), axis=1)):
            if problem := _impossible(row, self.answer.total):
                raise self.answer.error(number, problem)
        if self.finite is not None:
            for number, total in enumerate(self.finite.read().view(np.float64)):
                if not np.isfinite(total):
                    raise self.answer.error(number, "replacement tokens that contain NaN or infinity")


@dataclass(frozen=True)
class Choices:
    """The answers of a stage on their way to the CPU.

    Attributes:
        layer: the stage's layer.
        parts: the answers.
        lengths: tokens that every row shall have.
        left: [B] tokens that every row has; None before they are dropped.
    """

    layer: int
    parts: list[Choice]
    lengths: tuple[int, ...] = ()
    left: Part | None = None

    def check(self) -> None:
        """Refuse values that no answer may have, and rows of another length than was chosen; waits for them.

        Raises:
            PruningError: naming the method, layer, sample and problem.
        """
        for part in self.parts:
            part.check()
        counts = self.lengths if self.left is None else tuple(self.left.read().tolist())
        for row, (length, count) in enumerate(zip(self.lengths, counts, strict=True)):
            if length != count:
                raise PruningError(
                    f"at layer {self.layer}, row {row}: {length} tokens were chosen, but {count} are left; the method "
                    "changed what the engine counts tokens by"
                )


def sent_to_host(answers: Sequence[Answer], *more: Tensor) -> tuple[list[Choice], list[Part]]:
    """Start to copy answers, and further integers, to the CPU; nothing waits."""
    # Sums are finite if all parts are: one operation instead of five. Their bits travel as integers.
    sums = (answer.tokens.flatten(1).sum(1, dtype=torch.float64) for answer in answers if answer.tokens is not None)
    merged = [one.view(torch.int64) for one in sums]
    parts = start_copies([*(answer.indices for answer in answers), *merged, *more])
    finite = iter(parts[len(answers) : len(answers) + len(merged)])
    choices = [
        Choice(answer, part, None if answer.tokens is None else next(finite))
        for answer, part in zip(answers, parts, strict=False)
    ]
    return choices, parts[len(answers) + len(merged) :]


def settle(answers: Sequence[Answer]) -> list[Choice]:
    """Bring answers to the CPU in one transfer, and check their values.

    Raises:
        PruningError: naming the method, layer, sample and problem.
    """
    choices, _ = sent_to_host(answers)
    for choice in choices:
        choice.check()
    return choices


def _malformed(selection: Selection, lead: tuple[int, ...], total: int, width: int, keep: int | None) -> str | None:
    """Return the problem with an answer's types and shapes, None if there is none; `lead` precedes its shapes."""
    indices: Any = selection.indices
    tokens: Any = selection.tokens
    if not isinstance(indices, Tensor):
        return f"{type(indices).__name__} instead of a tensor of indices or a Selection"
    if indices.dtype == torch.bool or indices.is_floating_point() or indices.is_complex():
        return f"indices of dtype {indices.dtype}; expected integers (turn a mask into indices with .nonzero())"
    if indices.dim() != len(lead) + 1 or tuple(indices.shape[:-1]) != lead:
        expected = f"({lead[0]}, {keep})" if lead else "one dimension"
        return f"indices of shape {tuple(indices.shape)}; expected {expected}"
    count = indices.shape[-1]
    if keep is not None and count != keep:
        return f"{count} indices; exactly {keep} of {total} were requested (set exact = False if the method decides)"
    expected_tokens = (*lead, count, width)
    if tokens is None:
        return None
    if not isinstance(tokens, Tensor) or tuple(tokens.shape) != expected_tokens or not tokens.is_floating_point():
        got = f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        return f"replacement tokens {got}; expected floating point {expected_tokens}"
    return None


def _impossible(indices: Ints, total: int) -> str | None:
    """Return the problem with sorted indices [k] into `total` tokens, None if there is none."""
    if not len(indices):
        return None
    least, most = int(indices[0]), int(indices[-1])
    if least < 0 or most >= total:
        hint = " (top_k returns these for scores that are NaN)" if least == most == -total - 1 else ""
        return f"indices from {least} to {most}; expected 0 to {total - 1}{hint}"
    repeated = int((indices[1:] == indices[:-1]).sum())
    return f"{repeated} duplicate indices; every token can be kept once" if repeated else None
