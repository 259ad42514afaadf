"""Small methods that look at states inside the decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from tests.helpers.pruners import Plan
from uniprune.pruning.base import IntraLLM, Stage
from uniprune.pruning.looks import Look, Part, Passage
from uniprune.pruning.view import View


@dataclass(frozen=True, kw_only=True)
class Watching(Plan):
    """A plan that also keeps, of every part, all that enters and leaves it; `seen` has what later stages get of it."""

    parts: Sequence[Part] = ("attention", "mlp", "layer")
    seen: dict[int, list[tuple[View, list[Tensor], Tensor]]] = field(default_factory=dict)
    exact: ClassVar[bool] = False

    def looks(self, layers: Sequence[int]) -> list[Look]:
        return [Look(layer, part) for layer in range(layers[-1]) for part in self.parts]

    def look(self, passage: Passage) -> Tensor:
        return torch.stack([passage.entering, passage.leaving], 2)

    def select(self, view: View, keep: int) -> Any:
        chosen = super().select(view, keep)
        self.seen.setdefault(view.layer, []).append((view, list(view.seen), chosen))
        return chosen


@dataclass(frozen=True, kw_only=True)
class OnDevice(Watching):
    """The same, known beforehand how many tokens stay."""

    exact: ClassVar[bool] = True

    def schedule(self, num_layers: int) -> Any:
        return tuple(Stage(layer, share, self) for layer, share in self.plan.items())

    def select(self, view: View, keep: int) -> Any:
        return super().select(view, keep)[:keep]


@dataclass(frozen=True, kw_only=True)
class Looking(IntraLLM):
    """Looks before layer 2; `answer` makes its rows."""

    at: tuple[Look, ...] = (Look(1, "mlp"), Look(4))
    answer: Callable[[Passage], Any] = lambda passage: passage.leaving[..., 0]
    ratio: float = 0.5

    def looks(self, layers: Sequence[int]) -> tuple[Look, ...]:
        return self.at

    def look(self, passage: Passage) -> Any:
        return self.answer(passage)

    def select(self, view: View, keep: int) -> Tensor:
        assert len(view.seen) == 1  # after the last stage nothing is looked at
        return view.seen[0].topk(keep).indices
