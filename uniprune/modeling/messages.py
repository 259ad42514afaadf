"""The parts of a user message, before a processor renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL.Image import Image


@dataclass(frozen=True)
class Part:
    """One piece of a user message, in order: an image, or text."""

    text: str | None = None
    image: Image | None = None


@dataclass(frozen=True)
class RawQuestion:
    """What a row asks, before anybody words it: the material of a model family's own prompts.

    Attributes:
        benchmark: the dataset's name in VLMEvalKit; some families word some datasets in their own way.
        kind: "choice" (one of `options`), "yes-no" or "open".
        text: the question as the data file has it. hint: what goes before it. options: letter -> text.
        images: functions that decode the row's images, in order.
    """

    benchmark: str
    kind: Literal["choice", "yes-no", "open"]
    text: str
    hint: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[Callable[[], Image]] = ()
