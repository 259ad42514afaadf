"""Images of a prompt changed by an input stage, before the model's processor gets them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.modeling.messages import Part
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import keep_count
from uniprune.pruning.input_stage import Forms, InputStage

FormsOf = Callable[[Any, int], Forms]
"""A model's forms by processor and number of images, as `ModelAdapter.input_forms`."""


@dataclass(frozen=True)
class Resized:
    """Images as a model gets them.

    Attributes:
        images: the images.
        processor: the processor that encodes them in their forms.
        initial: visual tokens of the images as they were.
        budget: visual tokens that the ratio leaves of these, rounded for every image.
    """

    images: list[Image]
    processor: Any
    initial: int
    budget: int


def resized(stage: InputStage, images: Sequence[Image], processor: Any, forms: Forms) -> Resized:
    """Change the images of one prompt.

    For code of your own: process `images` with `processor` of the result, inside `with adapter.any_size():`, and prune
    with `method.after_input()`.

    Args:
        stage: the input stage, `method.input_stage`.
        images: RGB.
        processor: that of the prompt.
        forms: `adapter.input_forms(processor, len(images))`.

    Raises:
        ValueError: an image cannot be changed so.
    """
    changed, found, initial, budget = list[Image](), [], 0, 0
    for image in images:
        tokens = forms.full((image.height, image.width))
        keep = keep_count(tokens, stage.ratio)
        new, form = (image, None) if stage.ratio == 1 else stage.prepare(image, keep, forms)
        changed.append(new)
        found += [] if form is None else [form]
        initial, budget = initial + tokens, budget + keep
    return Resized(changed, forms.processor(processor, found) if found else processor, initial, budget)


@dataclass(frozen=True)
class Resizing:
    """An input stage for the rows of a model.

    Attributes:
        stage: the input stage.
        forms: the model's forms.
        one_by_one: whether every image of a prompt is processed as if it were the only one.
    """

    stage: InputStage
    forms: FormsOf
    one_by_one: bool = False

    def message(self, parts: Sequence[Part], processor: Any) -> tuple[list[Part], Resized]:
        """Return a message with its images changed, and what else follows."""
        images = [part.image for part in parts if part.image is not None]
        forms = self.forms(processor, 1 if self.one_by_one else len(images))
        found = resized(self.stage, images, processor, forms)
        new = iter(found.images)
        message = [part if part.image is None else dataclasses.replace(part, image=next(new)) for part in parts]
        return message, found


def check_resizable(pruner: Pruner, forms: FormsOf, processor: Any) -> None:
    """Refuse an input stage with a model whose forms are not described.

    Raises:
        UnsupportedError: they are not.
    """
    if pruner.input_stage is not None:
        forms(processor, 1)


def check_no_videos(pruner: Pruner, benchmark: str, requests: Sequence[Request]) -> None:
    """Refuse an input stage on rows about videos, whose frames would have every token.

    Raises:
        UserError: there are some.
    """
    if pruner.input_stage is not None and any(request.videos for request in requests):
        raise UserError(
            f"{type(pruner.input_stage).__name__} changes images only, and {benchmark} asks about videos; leave "
            f"{benchmark} out, or use a method that prunes"
        )
