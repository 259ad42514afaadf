"""Videos as files, as folders of frames, and as lists of images.

Files are decoded by decord, as in VLMEvalKit, which brings it along.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from uniprune.errors import UserError
from uniprune.modeling.messages import Video

FRAME_FILES = (".jpg", ".jpeg", ".png")
"""Endings of the frames in a folder."""


def video_of(images: Sequence[Image.Image], fps: float, name: str = "in memory") -> Video:
    """Return a list of images as a video of `fps` frames per second."""
    return Video(name, len(images), _rate(fps, name), lambda places: [images[place] for place in places])


def opened(path: Path, fps: float | None = None) -> Video:
    """Open a video file, or a folder of frames in the order of their names.

    Args:
        path: the file or folder.
        fps: frames per second of a folder, which files state themselves.

    Raises:
        UserError: it does not exist, is empty or damaged, or cannot be decoded here.
    """
    if path.is_dir():
        if fps is None:
            raise UserError(f"video {path} is a folder of frames, whose rate is unknown; expected a video file")
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in FRAME_FILES)
        return Video(path.name, len(files), _rate(fps, path.name), partial(_open_frames, files, path.name))
    if not path.is_file():
        raise UserError(f"video {path} does not exist")
    if importlib.util.find_spec("decord") is None:
        raise UserError(
            f"video {path.name} cannot be decoded, because decord is not installed; it comes with VLMEvalKit: pip "
            "install 'uniprune[vlmeval]' (a folder of frames in place of the file needs no decoder)"
        )
    reader = _reader(path)
    return Video(path.name, len(reader), _rate(reader.get_avg_fps(), path.name), partial(_decode, reader, path.name))


def _rate(fps: float, name: str) -> float:
    if not fps > 0:
        raise UserError(f"video {name} has {fps:g} frames per second; expected a number above 0")
    return float(fps)


def _open_frames(files: Sequence[Path], name: str, places: Sequence[int]) -> list[Image.Image]:
    """Decode frames of a folder.

    Raises:
        UserError: one of them is damaged.
    """
    return [_frame(files[place], name) for place in places]


def _frame(file: Path, name: str) -> Image.Image:
    try:
        image = Image.open(file)
        image.load()
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        problem = "is empty (0 bytes)" if not file.stat().st_size else "is damaged, cut off or no image"
        raise UserError(f"frame {file.name} of video {name} {problem}") from error
    return image


def _reader(path: Path) -> Any:
    """Return decord's reader of a file."""
    import decord

    if not path.stat().st_size:
        raise UserError(f"video {path.name} is empty (0 bytes)")
    try:
        return decord.VideoReader(str(path), num_threads=1)
    except Exception as error:  # decord raises RuntimeError or its own, for whatever it finds
        raise _undecodable(path.name) from error


def _decode(reader: Any, name: str, places: Sequence[int]) -> list[Image.Image]:
    """Decode frames of a file."""
    try:
        return [Image.fromarray(reader[place].asnumpy()) for place in places]
    except Exception as error:  # as above
        raise _undecodable(name) from error


def _undecodable(name: str) -> UserError:
    # decord's own message is the address of a line of its source; FFmpeg prints what it found to stderr.
    return UserError(f"video {name} cannot be decoded: it is damaged, cut off or no video")
