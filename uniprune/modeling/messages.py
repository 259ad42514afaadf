"""The parts of a user message, before a processor renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL.Image import Image

VISUAL_TOKENS = ("image_token", "video_token")
"""Attributes of a processor that hold the placeholders of one visual token."""


@dataclass(frozen=True)
class Part:
    """One piece of a user message, in order: an image, or text.

    Attributes:
        text: the text.
        image: the image as Pillow opened it; `image_decoding` of the run converts it to RGB.
    """

    text: str | None = None
    image: Image | None = None


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


def check_message(parts: Sequence[Part], processor: Any) -> None:
    """Check that no text has a processor's placeholder, which would be taken for an image, and every image has pixels.

    Raises:
        ValueError: it is not so.
    """
    named = (getattr(processor, name, None) for name in VISUAL_TOKENS)
    tokens = [token for token in named if token is not None]
    for part in parts:
        if found := [token for token in tokens if part.text is not None and token in part.text]:
            raise ValueError(
                f"a text of the message contains {found[0]!r}, which the model reads as an image or a video that is "
                "not there; take it out of the benchmark's text"
            )
        if part.image is not None and not all(part.image.size):
            width, height = part.image.size
            raise ValueError(f"an image of {width}x{height} has no pixels")
