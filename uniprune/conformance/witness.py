"""A pruner that asks another one and remembers every question and answer."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.view import View

WATCHED = ("tokens", "cells", "prompt", "text", "after")
"""Tensors of a view that a method must leave as they are."""


@dataclass(frozen=True)
class RecordedDecision:
    """One call of `select`.

    Attributes:
        pruner: the method. view: what it saw, as it was before the call. keep: how many tokens were asked for.
        answer: what it returned. changed: names of the view's attributes it changed.
    """

    pruner: Pruner
    view: View
    keep: int
    answer: Any
    changed: tuple[str, ...]

    @property
    def indices(self) -> Any:
        """The indices of the answer, whatever they are."""
        return self.answer.indices if isinstance(self.answer, Selection) else self.answer

    @property
    def picks(self) -> list[int]:
        """The kept tokens, sorted; empty when the answer is not a list of integers."""
        indices = self.indices
        if not isinstance(indices, Tensor) or indices.dim() != 1 or indices.is_floating_point():
            return []
        return sorted(map(int, indices.tolist()))

    def again(self, **changes: Any) -> RecordedDecision:
        """The same question once more, with some attributes of the view replaced."""
        return ask(self.pruner, dataclasses.replace(pristine(self.view), **changes), self.keep)


def ask(pruner: Pruner, view: View, keep: int) -> RecordedDecision:
    """Ask and note what changed."""
    before = pristine(view)
    answer = pruner.select(view, keep)
    changed = [name for name in WATCHED if not torch.equal(getattr(view, name), getattr(before, name))]
    changed += [name for name in ("grids", "layer", "initial") if getattr(view, name) != getattr(before, name)]
    return RecordedDecision(pruner, before, keep, answer, tuple(changed))


def pristine(view: View) -> View:
    """A copy whose tensors, scratch and generator are its own."""
    generator = torch.Generator()
    generator.set_state(view.generator.get_state())
    tensors = {name: getattr(view, name).clone() for name in WATCHED}
    own: dict[str, Any] = {"scratch": copy.deepcopy(view.scratch), "generator": generator, "grids": list(view.grids)}
    return dataclasses.replace(view, **tensors, **own)


@dataclass(frozen=True, kw_only=True)
class RecordingPruner(Pruner):
    """`inner`, under observation.

    Attributes:
        inner: the method. decisions: every question and answer so far. errors: what it raised instead of answering.
    """

    inner: Pruner
    decisions: list[RecordedDecision] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        """What the engine asks a method about itself is answered by `inner`, which has checked it."""
        for name in ("ratio", "layer", "seed", "positions", "scope", "order"):
            object.__setattr__(self, name, getattr(self.inner, name))
        for name in ("llm_attention", "upcoming_attention", "needs_text"):
            object.__setattr__(self, name, getattr(self.inner, name))

    @property
    def exact(self) -> bool:
        """Whether the method keeps the requested number."""
        return self.inner.exact

    @property
    def in_place(self) -> bool:
        """Whether the method leaves tokens in their places."""
        return self.inner.in_place

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        """Those of the method."""
        return self.inner.vision_layers

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """The method's stages, each under observation; one witness per pruner, as the engine counts by pruner."""
        witnesses: dict[int, RecordingPruner] = {}
        stages = []
        for stage in self.inner.schedule(num_layers):
            own = RecordingPruner(inner=stage.pruner, decisions=self.decisions, errors=self.errors)
            stages.append(Stage(stage.layer, stage.ratio, witnesses.setdefault(id(stage.pruner), own)))
        return tuple(stages)

    def evict_from(self, num_layers: int) -> int | None:
        """As the method."""
        return self.inner.evict_from(num_layers)

    def select(self, view: View, keep: int) -> Tensor | Selection:
        """The method's answer."""
        try:
            self.decisions.append(ask(self.inner, view, keep))
        except Exception as error:
            self.errors.append(error)
            raise
        answer: Tensor | Selection = self.decisions[-1].answer
        return answer
