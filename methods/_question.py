"""The question in the space of the vision tower's text tower, or in the language model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from uniprune.pruning.functional import at_least_float32
from uniprune.pruning.view import Space, View

Text = Literal["llm", "tower"]


def in_space(view: View, text: Text) -> tuple[Space, Tensor, Callable[[Tensor], Tensor]]:
    """Return the space of features that are compared, the question's tokens [M, E], and what makes features [N, E].

    Raises:
        UnsupportedError: the checkpoint carries no text tower.
    """
    if text == "llm":
        return "llm", view.prompt, at_least_float32
    tower = view.vision.text_tower()
    return "vision", tower.words, tower.project


def relevance(view: View, text: Text) -> tuple[Space, Tensor]:
    """Return the space of features that are compared, and [N] softmax of their products with the whole question.

    CLIP relates patches to text the wrong way round: its products are negated.

    Raises:
        UnsupportedError: the checkpoint carries no text tower.
    """
    if text == "llm":
        return "llm", (at_least_float32(view.tokens) @ at_least_float32(view.prompt).mean(0)).softmax(0)
    tower = view.vision.text_tower()
    products = tower.project(at_least_float32(view.features("vision")), normed=True) @ tower.summary
    return "vision", (-products).softmax(0)
