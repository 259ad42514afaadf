"""Animated sheets: one frame per row of panels, over ratios, say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from uniprune.reports.overlays.drawing import PAPER, draw
from uniprune.reports.overlays.sheet import Sheet
from uniprune.utils.files import explain_write

SHOWN = 900
"""Milliseconds that a frame is shown."""


def frames(sheet: Sheet, side: int, columns: int) -> list[Image.Image]:
    """Draw every row of panels as a sheet of its own, all of one size."""
    drawn = [draw(dataclasses.replace(sheet, rows=(row,)), side, columns) for row in sheet.rows]
    size = max(one.width for one in drawn), max(one.height for one in drawn)
    even = [Image.new("RGB", size, PAPER) for _ in drawn]
    for canvas, one in zip(even, drawn, strict=True):
        canvas.paste(one)
    return even


def save(images: Sequence[Image.Image], path: Path) -> None:
    """Write an animation; the ending of the file, .gif or .apng, is its format."""
    form = {".gif": "GIF", ".apng": "PNG"}[path.suffix]
    shown = [SHOWN] * (len(images) - 1) + [2 * SHOWN]
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        images[0].save(path, form, save_all=True, append_images=images[1:], duration=shown, loop=0)
