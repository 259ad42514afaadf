"""Images as decoded from a file to RGB: as VLMEvalKit converts them, or as an image viewer shows them.

VLMEvalKit calls `Image.convert("RGB")` and nothing else. For most images a viewer shows the same; `as_rgb` names those
where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image

from uniprune.modeling.messages import Clip, Part
from uniprune.results.remarks import DEPTH, FRAMES, ORIENTATION, TRANSPARENCY

ImageDecoding = Literal["kit", "viewer"]

_TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> transposition that undoes it. `ImageOps.exif_transpose` fails on damaged EXIF data."""

_STILL = ("MPO", "PSD")
"""Formats whose further frames no viewer shows: previews and depth maps of a camera, layers of a drawing."""

_WHITE = {"I": (255, 65535), "F": (1, 255, 65535)}
"""Mode -> customary values of white, ascending: files do not store it."""

_TIFF, _SAMPLE_FORMAT = ExifTags.Base, 339

_LEVELS: Mapping[str, Callable[[int], int]] = {
    "L;2": lambda level: level * 85,
    "L;4": lambda level: level * 17,
    "RGB;16B": lambda level: level >> 8,
}
"""PNG's layout of pixels -> its levels in 8 bits. Pillow converts the pixels but not the colour that is transparent."""


def as_rgb(image: Image.Image, decoding: ImageDecoding = "kit") -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an image, as Pillow opened it, to RGB.

    Returns:
        The image without metadata, and remarks: where `kit` differs from what a viewer shows, and, with either, that
        the file has further frames.

    Raises:
        Exception: anything that Pillow's decoders raise for a damaged file.
    """
    frames = (FRAMES,) * (image.format not in _STILL and _safely(lambda: getattr(image, "n_frames", 1), 1) > 1)
    layout = next((str(tile[3]) for tile in getattr(image, "tile", ())), "")
    image.load()
    plain = image.convert("RGB")
    if layout in _LEVELS and "transparency" in image.info:
        image = _with_key(image, _LEVELS[layout])
    shown = _as_viewers(image, plain)
    rgb = plain if decoding == "kit" else shown[-1][1]
    rgb.info = {}  # a processor that reads the orientation must not apply it (again)
    if decoding == "viewer" or not _differ(plain, shown[-1][1]):
        return rgb, frames
    return rgb, (*(name for (_, one), (name, other) in pairwise(shown) if _differ(one, other)), *frames)


def converted(parts: Sequence[Part], decoding: ImageDecoding) -> tuple[list[Part], tuple[str, ...]]:
    """Convert the images of a message, and the frames of its clips; return also their remarks, each once."""
    remarks: dict[str, None] = {}

    def rgb(image: Image.Image) -> Image.Image:
        plain, found = as_rgb(image, decoding)
        remarks.update(dict.fromkeys(found))
        return plain

    message = []
    for part in parts:
        if part.image is not None:
            part = Part(image=rgb(part.image))
        elif part.clip is not None:
            part = Part(clip=Clip(part.clip.video, part.clip.places, tuple(map(rgb, part.clip.images))))
        message.append(part)
    return message, tuple(remarks)


def _as_viewers(image: Image.Image, plain: Image.Image) -> list[tuple[str, Image.Image]]:
    """Return `plain` and, for each step from there to what viewers show, the step's remark and result."""
    steps = [("", plain)]
    turn = _safely(lambda: _TURNS.get(image.getexif().get(ExifTags.Base.Orientation)), None)
    if image.mode in _WHITE or image.mode.startswith("I;16"):
        image = _scaled(image)
        steps.append((DEPTH, image.convert("RGB")))
    if image.has_transparency_data:
        steps.append((TRANSPARENCY, _on_white(image)))
    if turn is not None:
        steps.append((ORIENTATION, steps[-1][1].transpose(turn)))
    return steps


def _scaled(image: Image.Image) -> Image.Image:
    """Convert values of 16 or 32 bits to 8 (mode "L", with a transparent value "LA"); `convert` cuts them at 255."""
    values = _values(image)
    scaled = Image.fromarray(_by_range(values, _WHITE[image.mode]) if image.mode in _WHITE else _upper_byte(values))
    transparent = image.info.get("transparency")
    if transparent is not None:
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled


def _values(image: Image.Image) -> np.ndarray:
    """Return the pixel values; of TIFF, Pillow reads 32 unsigned bits as signed, and does not invert 16."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if tags.get(_TIFF.BitsPerSample) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)
    if tags.get(_TIFF.PhotometricInterpretation) == 0 and values.dtype.kind == "u":
        values = ~values
    return values


def _upper_byte(values: np.ndarray) -> np.ndarray:
    """Return the upper byte of 16 bits, which is what Pillow keeps of colours."""
    return (values >> 8).astype(np.uint8)


def _by_range(values: np.ndarray, whites: Sequence[int]) -> np.ndarray:
    """Return values divided by the least of `whites` that none exceeds; failing that, scaled from lowest to highest."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    white = next((white for white in whites if low >= 0 and high <= white), None)
    low, high = (low, high) if white is None else (0.0, float(white))
    exact = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return ((exact - low) * (255 / ((high - low) or 1))).round().astype(np.uint8)


def _with_key(image: Image.Image, in_8_bits: Callable[[int], int]) -> Image.Image:
    """Return a copy whose transparent colour has 8 bits, as its pixels do."""
    key = image.info["transparency"]
    copy = image.copy()
    copy.info["transparency"] = tuple(map(in_8_bits, key)) if image.mode == "RGB" else in_8_bits(key)
    return copy


def _on_white(image: Image.Image) -> Image.Image:
    """Composite on white: the page of papers and browsers, for which transparent figures are drawn in black."""
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")


def _differ(one: Image.Image, other: Image.Image) -> bool:
    return one is not other and (one.size != other.size or one.tobytes() != other.tobytes())


def _safely(read: Callable[[], Any], default: Any) -> Any:
    """Read metadata, or return the default: viewers show an image whose metadata or further frames are damaged."""
    try:
        return read()
    except Exception:  # Pillow raises whatever it stumbles over
        return default
