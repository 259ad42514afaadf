"""The un-pruned model as a method: the baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from uniprune.pruning.base import Pruner, Stage
from uniprune.registry import register_method


@register_method("none")
@dataclass(frozen=True, kw_only=True)
class NoPruning(Pruner):
    """Keeps every visual token: the un-pruned model, whatever the ratio.

    The model takes its own path, and its outputs are bit-identical.

    Cost: none.
    """

    kind: ClassVar[str] = "none"

    def with_ratio(self, ratio: float) -> Self:
        """Return the same method: every ratio keeps everything."""
        return self

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return no pruning point."""
        return ()
