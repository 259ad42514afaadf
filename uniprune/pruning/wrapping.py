"""A pruner that stands in front of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from uniprune.pruning.base import Pruner
from uniprune.pruning.input_stage import InputStage
from uniprune.pruning.looks import Look, Passage
from uniprune.pruning.view import TowerLayer

COPIED = ("ratio", "layer", "seed", "positions", "scope", "order", "llm_attention", "upcoming_attention", "needs_text")
"""Attributes that the engine reads from a pruner, beside those that are computed and those below."""


@dataclass(frozen=True, kw_only=True)
class WrappingPruner(Pruner):
    """A pruner that the engine treats as `inner`; subclasses say what happens in `schedule`, `look` and `select`.

    Attributes:
        inner: the method.
    """

    inner: Pruner

    def __post_init__(self) -> None:
        """Copy the attributes that the engine reads from `inner`, which has validated them."""
        for name in (*COPIED, "takes_gaps"):
            object.__setattr__(self, name, getattr(self.inner, name))
        object.__setattr__(self, "text_checkpoint", getattr(self.inner, "text_checkpoint", None))

    @property
    def exact(self) -> bool:
        """Return whether the method keeps the requested number of tokens."""
        return self.inner.exact

    @property
    def in_place(self) -> bool:
        """Return whether the method leaves tokens in their places."""
        return self.inner.in_place

    @property
    def vision_layers(self) -> tuple[TowerLayer, ...]:
        """Vision layers of the method."""
        return self.inner.vision_layers

    @property
    def input_stage(self) -> InputStage | None:
        """Return the method's part that changes images."""
        return self.inner.input_stage

    @property
    def input_ratio(self) -> float:
        """Return the share of tokens that it leaves."""
        return self.inner.input_ratio

    def evict_from(self, num_layers: int) -> int | None:
        """Return the method's layer."""
        return self.inner.evict_from(num_layers)

    def looks(self, layers: Sequence[int]) -> Sequence[Look]:
        """Return the method's looks."""
        return self.inner.looks(layers)

    def look(self, passage: Passage) -> Tensor:
        """Return the method's rows."""
        return self.inner.look(passage)
