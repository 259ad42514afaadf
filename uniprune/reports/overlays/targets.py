"""Rows to draw, by what a user names: image and video files, folders of images, rows of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from uniprune.errors import UserError, unknown
from uniprune.evaluation.collection import DatasetCollection
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.video_files import opened
from uniprune.modeling.messages import Part
from uniprune.registry import BENCHMARKS
from uniprune.reports.overlays.answers import ShownRow

ASKED = "Describe the image."
"""Question about a picture of one's own, if none is given."""
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm")
"""Endings of video files."""
LENGTH = 32
"""Longest answer about a picture of one's own, in tokens."""


def shown_rows(target: str, question: str | None, collection: DatasetCollection, limit: int) -> list[ShownRow]:
    """Return the rows of a target.

    Args:
        target: a file, a folder, or BENCHMARK:ROW; a benchmark alone means its first rows.
        question: for files and folders.
        collection: the benchmarks.
        limit: most rows of a folder or of a benchmark without ROW.

    Raises:
        UserError: there is none.
    """
    path = Path(target).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _image_endings())
        if not files:
            raise UserError(f"folder {path} has no image; expected files such as .png and .jpg in it")
        return [_file(file, question) for file in files[:limit]]
    if path.is_file():
        return [_file(path, question)]
    name, colon, index = target.partition(":")
    if name not in BENCHMARKS.names():
        if path.suffix or len(path.parts) > 1:
            raise UserError(f"{target} does not exist; expected an image or video file, a folder, or BENCHMARK:ROW")
        raise UserError(f"{unknown('benchmark', name, BENCHMARKS.names())} No file or folder has that name, either")
    if question is not None:
        raise UserError(f"--question is for images of your own; {target} has the benchmark's question")
    requests = collection.get(name).requests(None)
    found = [request for request in requests if request.index == index] if colon else requests[:limit]
    if not found:
        some = ", ".join(request.index for request in requests[:5])
        raise UserError(f"benchmark {name} has no row {index!r} that can be asked; its rows: {some}, …")
    return [ShownRow(request, f"{name}:{request.index}", name, request.question) for request in found]


def _image_endings() -> set[str]:
    return set(Image.registered_extensions())


def _file(path: Path, question: str | None) -> ShownRow:
    """Return a file with a question as a row."""
    text, is_video = question or ASKED, path.suffix.lower() in VIDEOS
    request = Request(path.name, partial(_load, path, text, is_video), question or "", LENGTH, videos=int(is_video))
    return ShownRow(request, path.name, asked=text)


def _load(path: Path, text: str, is_video: bool) -> Sequence[Part]:
    """Open a file.

    Raises:
        UserError: it is empty or damaged, or no image or video.
    """
    if is_video:
        return [Part(video=opened(path)), Part(text=text)]
    try:
        image = Image.open(path)
        image.load()
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        problem = "is empty (0 bytes)" if not path.stat().st_size else "is damaged, cut off or no image"
        raise UserError(f"image {path} {problem}; give a file that an image viewer opens") from error
    return [Part(image=image), Part(text=text)]
