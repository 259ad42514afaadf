"""The parts of a user message, before a processor renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL.Image import Image

VISUAL_TOKENS = ("image_token", "video_token")
"""Attributes of a processor that hold the placeholders of one visual token."""
OTHERS = ("audio_token",)
"""Attributes of a processor that hold placeholders of what no benchmark shows."""
MARKS = ("video_start_id", "video_end_id")
"""Attributes of a processor that hold the ids by which it tells the placeholders of videos from those of images."""
Kind = Literal["text", "image", "video"]
"""Kinds of pieces, by their names in chat templates."""


@dataclass(frozen=True)
class Video:
    """A video, of which a run reads the frames that it shows.

    Attributes:
        name: its file, for messages.
        frames: number of its frames.
        fps: frames per second, on average.
        read: function from numbers of frames, ascending and perhaps repeated, to these frames as Pillow opened them.
    """

    name: str
    frames: int
    fps: float
    read: Callable[[Sequence[int]], Sequence[Image]]


@dataclass(frozen=True)
class Clip:
    """The frames of a video that are shown.

    Attributes:
        video: the video.
        places: number of every frame in the video.
        images: the frames.
    """

    video: Video
    places: tuple[int, ...]
    images: tuple[Image, ...]


@dataclass(frozen=True)
class Part:
    """One piece of a user message, in order: text, an image, or a video; or the system message before it.

    Attributes:
        text: the text.
        image: the image as Pillow opened it; `image_decoding` of the run converts it to RGB.
        video: the video; `frame_sampling` of the run chooses its frames.
        clip: the chosen frames, in place of the video.
        system: whether it is the system message, which comes first.
    """

    text: str | None = None
    image: Image | None = None
    video: Video | None = None
    clip: Clip | None = None
    system: bool = False

    @property
    def kind(self) -> Kind:
        """Kind of the piece."""
        if self.text is not None:
            return "text"
        return "video" if self.image is None else "image"


@dataclass(frozen=True)
class RawQuestion:
    """Content of a row before it is worded, from which a model family makes its own prompts.

    Attributes:
        benchmark: the dataset's name in VLMEvalKit; some families word some datasets in their own way.
        kind: "choice" (one of `options`), "yes-no", "open", or "own": worded by the benchmark alone.
        text: the question as in the data file.
        hint: text before it.
        options: letter -> text.
        images: functions that open the images of the row, in order.
        message: the benchmark's own message, for families that rewrite it: texts, and positions in `images`.
    """

    benchmark: str
    kind: Literal["choice", "yes-no", "open", "own"]
    text: str
    hint: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[Callable[[], Image]] = ()
    message: Sequence[str | int] = ()


def check_message(parts: Sequence[Part], processor: Any) -> None:
    """Check that no text has a processor's placeholder or mark, which the model takes for one, and images have pixels.

    Raises:
        ValueError: it is not so.
    """
    named = [getattr(processor, name, None) for name in (*VISUAL_TOKENS, *OTHERS)]
    marks = [number for name in MARKS if (number := getattr(processor, name, None)) is not None]
    tokens = [token for token in (*named, *processor.tokenizer.convert_ids_to_tokens(marks)) if token is not None]
    for part in parts:
        if found := [token for token in tokens if part.text is not None and token in part.text]:
            raise ValueError(
                f"a text of the message contains {found[0]!r}, which the model reads as an image or a video that is "
                "not there; take it out of the benchmark's text"
            )
        if part.image is not None and not all(part.image.size):
            width, height = part.image.size
            raise ValueError(f"an image of {width}x{height} has no pixels")
