"""Prompts worded by the benchmark, or by the model's family in the way of its own evaluation.

Either way the words are placed inside the model's chat template. The policy is part of a run's identity, because it
moves scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from PIL.Image import Image

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.modeling.messages import Part, RawQuestion
from uniprune.pruning.base import Pruner
from uniprune.utils.hashing import stable_hash
from uniprune.utils.paths import PROGRAM

Policy = Literal["benchmark", "family"]
Question = Literal["seen", "hidden"]
"""Knowledge of a method when it decides: the whole prompt, or nothing behind the images, which then come first."""
PromptBuilder = Callable[[RawQuestion], Sequence[str | int] | None]
"""Texts and numbers of images, in order; None for a row that the family leaves to the benchmark."""


def worded(request: Request, prompt: PromptBuilder, system: str | None = None) -> Request:
    """Return the request in a family's words, or unchanged if the family has none for it.

    Args:
        request: the row.
        prompt: builds the user message.
        system: a system message that the family puts before every user message.
    """
    pieces = None if request.raw is None else prompt(request.raw)
    if request.raw is not None and pieces is not None:
        wording = tuple(pieces)
        request = dataclasses.replace(request, wording=wording, load=partial(_load, wording, request.raw.images))
    if system is None:
        return request
    return dataclasses.replace(
        request, wording=(system, *request.wording), load=partial(_after_system, system, request.load)
    )


def images_first(parts: Sequence[Part]) -> Sequence[Part]:
    """Return a message with its images and videos in front of its text; the same object if they are."""
    ordered = sorted(parts, key=lambda part: part.text is not None and not part.system)
    return parts if all(one is other for one, other in zip(ordered, parts, strict=True)) else ordered


def check_hidden(pruner: Pruner, num_layers: int) -> None:
    """Refuse a method that looks at the question, where it is hidden.

    Raises:
        UserError: naming the stages that do.
    """
    stages = pruner.schedule(num_layers)
    names = dict.fromkeys(type(stage.pruner).__name__ for stage in stages if stage.pruner.prompt_aware)
    if names:
        raise UserError(
            f"{' and '.join(names)} chooses tokens by the question, or by attention from text behind the image, which "
            f"--question hidden withholds; `{PROGRAM} list methods --long` shows which methods need no question"
        )


def prompts_hash(requests: Sequence[Request]) -> str:
    """Hash the words of all rows: index, question, longest prediction, and the benchmark's or family's wording."""
    return stable_hash([(row.index, row.question, row.max_new_tokens, *row.wording) for row in requests])


def _load(wording: Sequence[str | int], images: Sequence[Callable[[], Image]]) -> list[Part]:
    """Build the message of a wording, its images opened."""
    return [Part(text=piece) if isinstance(piece, str) else Part(image=images[piece]()) for piece in wording]


def _after_system(system: str, load: Callable[[], Sequence[Part]]) -> list[Part]:
    """Build a message after a system message."""
    return [Part(text=system, system=True), *load()]
