"""The parts of a user message, before a processor renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL.Image import Image


@dataclass(frozen=True)
class Part:
    """One piece of a user message, in order: an image, or text; or the text of the system message before it.

    Attributes:
        text: the text.
        image: the image as Pillow opened it; `image_decoding` of the run converts it to RGB.
        system: whether it is the system message, which comes first.
    """

    text: str | None = None
    image: Image | None = None
    system: bool = False


@dataclass(frozen=True)
class RawQuestion:
    """Content of a row before it is worded, from which a model family makes its own prompts.

    Attributes:
        benchmark: the dataset's name in VLMEvalKit; some families word some datasets in their own way.
        kind: "choice" (one of `options`), "yes-no" or "open".
        text: the question as in the data file.
        hint: text before it.
        options: letter -> text.
        images: functions that open the images of the row, in order.
    """

    benchmark: str
    kind: Literal["choice", "yes-no", "open"]
    text: str
    hint: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[Callable[[], Image]] = ()
