"""The un-pruned model, as a method: the reference every other method is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from uniprune.pruning.base import Pruner, Stage
from uniprune.registry import register_method


@register_method("none")
@dataclass(frozen=True, kw_only=True)
class NoPruning(Pruner):
    """Keeps every visual token: the vanilla model, whatever ratio is asked for.

    There is no paper to differ from; the model takes its own path and its outputs are bit-identical. Cost: none.
    """

    kind: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", 1.0)
        super().__post_init__()

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """No pruning point at all."""
        return ()
