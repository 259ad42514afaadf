"""A pruner that delegates to another one and records every call of `select`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from uniprune.engine.checks import drawn, process_settings, random_states, restore
from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.looks import Passage
from uniprune.pruning.view import View
from uniprune.pruning.wrapping import WrappingPruner

WATCHED = ("tokens", "cells", "prompt", "text", "after")
"""Tensors of a view that a method must not change."""


@dataclass(frozen=True)
class RecordedDecision:
    """One call of `select`.

    Attributes:
        pruner: the method.
        view: copy of its view before the call.
        keep: requested number of tokens.
        returned: its return value.
        changed: names of the view's attributes that it changed.
        left: group ("random", "process") -> names of what it left otherwise than it was, in the process.
    """

    pruner: Pruner
    view: View
    keep: int
    returned: Any
    changed: tuple[str, ...]
    left: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def indices(self) -> Any:
        """Returned indices, of any type."""
        return self.returned.indices if isinstance(self.returned, Selection) else self.returned

    @property
    def picks(self) -> list[int]:
        """Kept tokens, sorted; empty if the indices are not one-dimensional integers."""
        indices = self.indices
        if not isinstance(indices, Tensor) or indices.dim() != 1 or indices.is_floating_point():
            return []
        return sorted(map(int, indices.tolist()))

    def again(self, **changes: Any) -> RecordedDecision:
        """Call `select` again, with some attributes of the view replaced."""
        return decide(self.pruner, dataclasses.replace(copy_of(self.view), **changes), self.keep)


def decide(pruner: Pruner, view: View, keep: int) -> RecordedDecision:
    """Call `select` and record what it changed in the view and, restoring its settings, in the process."""
    before, process, random = copy_of(view), process_settings(), random_states()
    try:
        returned = pruner.select(view, keep)
    finally:
        left = {"process": restore(process), "random": drawn(random)}
    changed = [name for name in WATCHED if not torch.equal(getattr(view, name), getattr(before, name))]
    changed += [name for name in ("grids", "layer", "initial") if getattr(view, name) != getattr(before, name)]
    return RecordedDecision(pruner, before, keep, returned, tuple(changed), left)


def copy_of(view: View) -> View:
    """Return a copy with its own tensors, scratch and generator."""
    generator = torch.Generator()
    generator.set_state(view.generator.get_state())
    tensors = {name: getattr(view, name).clone() for name in WATCHED}
    own: dict[str, Any] = {"scratch": copy.deepcopy(view.scratch), "generator": generator, "grids": list(view.grids)}
    values = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}  # the engine's are lazy
    return View(**values | tensors | own)


@dataclass(frozen=True, kw_only=True)
class RecordingPruner(WrappingPruner):
    """A pruner that behaves as `inner` and records its decisions.

    Attributes:
        decisions: calls of `select` so far.
        errors: exceptions of `select` so far.
        passages: calls of `look` so far, with the method that looked.
    """

    decisions: list[RecordedDecision] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    passages: list[tuple[Pruner, Passage]] = field(default_factory=list)
    prompt_aware: ClassVar[bool] = True  # copies of views hold text

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return the method's stages, recorded; one recorder per pruner, because the engine counts by pruner."""
        recorders: dict[int, RecordingPruner] = {}
        stages = []
        for stage in self.inner.schedule(num_layers):
            shared = {name: getattr(self, name) for name in ("decisions", "errors", "passages")}
            own = RecordingPruner(inner=stage.pruner, **shared)
            stages.append(dataclasses.replace(stage, pruner=recorders.setdefault(id(stage.pruner), own)))
        return tuple(stages)

    def look(self, passage: Passage) -> Tensor:
        """Return the method's rows and record the call."""
        self.passages.append((self.inner, passage))
        return self.inner.look(passage)

    def select(self, view: View, keep: int) -> Tensor | Selection:
        """Return the method's selection and record the call."""
        try:
            self.decisions.append(decide(self.inner, view, keep))
        except Exception as error:
            self.errors.append(error)
            raise
        returned: Tensor | Selection = self.decisions[-1].returned
        return returned
