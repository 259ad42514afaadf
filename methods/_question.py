"""The question in the space of the vision tower's text tower, or in the language model's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import at_least_float32, count_outliers
from uniprune.pruning.view import Space, View

Text = Literal["llm", "tower"]


@dataclass(frozen=True, kw_only=True)
class WithTextTower(PreLLM):
    """A method that compares patches with the question, in either of two spaces.

    Args:
        text: space of the question: the language model's ("llm") or that of the vision tower's text "tower".
        text_checkpoint: folder of the CLIP model (safetensors and tokenizer) from which the vision tower was taken, for
            `text=tower`.
    """

    text: Text = "tower"
    text_checkpoint: str | None = None
    needs_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_checkpoint is not None and self.text != "tower":
            raise UserError(f"text_checkpoint is read with text=tower only, not with text={self.text}; leave one out")


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
    """Return the space of features that are compared, and [N] their products with the whole question.

    CLIP relates patches to text the wrong way round: its products are negated.

    Raises:
        UnsupportedError: the checkpoint carries no text tower.
    """
    if text == "llm":
        return "llm", at_least_float32(view.tokens) @ at_least_float32(view.prompt).mean(0)
    tower = view.vision.text_tower()
    return "vision", -(tower.project(at_least_float32(view.features("vision")), normed=True) @ tower.summary)


def outliers(scores: Tensor) -> int:
    """Return how many of `scores` [N] have a share of their softmax that is an outlier, at least one and not all."""
    return min(max(1, count_outliers(scores.softmax(0))), len(scores) - 1)
