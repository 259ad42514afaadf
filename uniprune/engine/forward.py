"""The base of the two kinds of forward that the engine changes, `Prefill` and `Decode`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from uniprune.engine.report import PrefillReport
from uniprune.pruning.looks import Look


class Forward:
    """One forward of the model; hooks call its methods of the same name, which do nothing by default.

    Attributes:
        layers: decoder layers whose `before_layer` is needed.
    """

    layers = range(0)

    def before_attention(self, layer: int, module: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Capture the inputs of a decoder layer's self-attention."""

    def before_look(self, look: Look, entering: Tensor) -> None:
        """Hold what enters a part of a layer that a method looks at."""

    def after_look(self, look: Look, leaving: Tensor) -> None:
        """Have methods look at what leaves it."""

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        """Return the hidden states [B, n, D] and changed arguments of a decoder layer; None to change nothing."""
        return None

    def further_inputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the positional inputs after the hidden states of the layer that `before_layer` has just changed."""
        return inputs

    def after_model(self) -> PrefillReport | None:
        """Complete a forward that succeeded, and return its report if there is one."""
        return None
