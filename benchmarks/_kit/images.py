"""The `image` column of a TSV: base64 images, lists of them, or references to the row that holds one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from uniprune.evaluation.image_decoding import as_rgb

from .faults import literal

REFERENCE = 64
"""Longest text that is a reference (another row's index) rather than an image; the kit's own limit."""


def opened(text: str) -> Image.Image:
    """Open base64 text as an image, not yet converted to RGB.

    VLMEvalKit writes the same pixels to a PNG first (for MME's `.jpg` paths, through JPEG once more).

    Raises:
        Exception: anything that Pillow raises for a text that is no image.
    """
    return Image.open(io.BytesIO(base64.b64decode(text)))


def resolve(cells: Mapping[str, str]) -> dict[str, list[str] | str]:
    """Map row index -> base64 texts of its images, references followed; or, as a plain string, the fault."""
    return {index: _images(index, cells) for index in cells}


def _images(index: str, cells: Mapping[str, str]) -> list[str] | str:
    cell = cells[index]
    if len(cell) <= REFERENCE:
        if len(cells.get(cell, "")) <= REFERENCE:
            return f"the image refers to row {cell!r}, which holds no image"
        cell = cells[cell]
    if not cell.startswith("["):
        return [cell]
    items = literal(cell)
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        return "the image is a damaged list, or one of anything but base64 texts"
    return items


def damaged(texts: Iterable[str]) -> dict[str, str]:
    """Find the images that cannot be decoded, each with the reason. Every image is decoded once, on all cores."""

    def fault(text: str) -> str | None:
        try:
            as_rgb(opened(text))
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            return f"the image cannot be decoded ({type(error).__name__}: {error})"
        return None

    distinct = list(dict.fromkeys(texts))
    with ThreadPoolExecutor() as pool:
        return {text: reason for text, reason in zip(distinct, pool.map(fault, distinct), strict=True) if reason}
