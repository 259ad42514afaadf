"""Looks: what a method keeps of the states in decoder layers, a row per token, without dropping any token.

A method that looks has two more parts than `select`: `looks` names parts of decoder layers, and `look` makes a row per
token of what enters and what leaves each. `view.seen` then has the rows of the tokens that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

Part = Literal["attention", "mlp", "layer"]
"""The attention or the MLP alone, without the norms and residual connections around them; or the layer as a whole."""
PARTS: tuple[Part, ...] = get_args(Part)
"""In the order in which they end."""


@dataclass(frozen=True)
class Look:
    """A place in the decoder where a method looks.

    Attributes:
        layer: the decoder layer.
        part: of the layer. What leaves the whole layer is what enters the next one.
    """

    layer: int
    part: Part = "layer"


@dataclass(frozen=True)
class Passage:
    """Whole prompts, text included, on their way through a part of a decoder layer; copies of the model's tensors.

    Rules that reduce over tokens read the text, so they are `prompt_aware`, and leave out padding.

    Attributes:
        at: the part.
        entering: [B, n, D] states that enter it, float dtype of the model; compute in float32.
        leaving: [B, n, D] states that leave it.
        real: [B, n] False at padding, whose states mean nothing.
    """

    at: Look
    entering: Tensor
    leaving: Tensor
    real: Tensor
