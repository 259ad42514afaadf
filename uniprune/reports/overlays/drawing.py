"""Panels and sheets of kept tokens, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from uniprune.reports.overlays.sheet import Bools, Layer, Panel, Sheet, layers

Pixels = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]
PAPER, INK, FAINT = (255, 255, 255), (24, 26, 32), (105, 110, 120)
"""Background, text and further text."""
VEIL, EDGE, MERGED, PADDING = (44, 48, 58), (0, 214, 255), (255, 140, 0), (196, 200, 206)
"""Colours of dropped tokens, the edge of kept ones, merged tokens, and padding that the model sees."""
DROPPED, KEPT = 1, 2
"""States of a pixel; 0 is seen by no token."""
HEAT = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))
"""Colours from the lowest to the highest value of a map."""
GAP = 16
"""Pixels between panels."""
ENLARGED = 3
"""Factor from which pictures are enlarged without smoothing."""


def draw(sheet: Sheet, side: int = 448, columns: int = 4) -> Image.Image:
    """Draw a sheet.

    Args:
        sheet: its content.
        side: pixels of the longer side of a single picture.
        columns: most panels next to each other.
    """
    lines = [
        _aligned([_panel(panel, sheet.pictures, side) for panel in row[start : start + columns]])
        for row in sheet.rows
        for start in range(0, len(row), columns)
    ]
    width = max((sum(one.width + GAP for one in line) for line in lines), default=side) + GAP
    title = _wrapped(sheet.title, max(width - 2 * GAP, 240), 15)
    width = max(width, 240 + 2 * GAP)
    legend = _legend(sheet, width - 2 * GAP)
    heights = [max(one.height for one in line) + GAP for line in lines]
    canvas = Image.new("RGB", (width, title.height + sum(heights) + legend.height + 3 * GAP), PAPER)
    canvas.paste(title, (GAP, GAP))
    top = title.height + 2 * GAP
    for line, height in zip(lines, heights, strict=True):
        left = GAP
        for one in line:
            canvas.paste(one, (left, top))
            left += one.width + GAP
        top += height
    canvas.paste(legend, (GAP, top))
    return canvas


def _panel(panel: Panel, pictures: Sequence[Image.Image], side: int) -> tuple[Image.Image, Image.Image]:
    """Draw a panel's caption, and the finest tokens of every picture above those that show them again."""
    found = layers(panel.selections)
    first = [one[0] for one in found if one]
    again = [one for picture in found for one in picture[1:]]
    across = next(columns for most, columns in ((1, 1), (4, 2), (9, 3), (10**9, 4)) if len(first) <= most)
    parts = [_contacts(panel, first, pictures, (side - (across - 1) * 4) // across, across)] if first else []
    if again:
        parts.append(_contacts(panel, again, pictures, side // (2 * across), 2 * across))
    width = max(200, *(one.width for one in parts))
    return _wrapped(panel.caption, width, 13), _stacked(parts, width)


def _aligned(drawn: Sequence[tuple[Image.Image, Image.Image]]) -> list[Image.Image]:
    """Put captions above panels, which begin at one height."""
    height = max(caption.height for caption, _ in drawn)
    whole = [Image.new("RGB", (body.width, height + 6 + body.height), PAPER) for _, body in drawn]
    for canvas, (caption, body) in zip(whole, drawn, strict=True):
        canvas.paste(caption)
        canvas.paste(body, (0, height + 6))
    return whole


def _contacts(
    panel: Panel, found: Sequence[Layer], pictures: Sequence[Image.Image], side: int, across: int
) -> Image.Image:
    """Draw layers in rows of `across`."""
    drawn = [draw_layer(panel, layer, pictures[layer.picture], side) for layer in found]
    rows = [drawn[start : start + across] for start in range(0, len(drawn), across)]
    width = max(sum(one.width + 4 for one in row) - 4 for row in rows)
    canvas = Image.new("RGB", (width, sum(max(one.height for one in row) + 4 for row in rows) - 4), PAPER)
    top = 0
    for row in rows:
        left = 0
        for one in row:
            canvas.paste(one, (left, top))
            left += one.width + 4
        top += max(one.height for one in row) + 4
    return canvas


def draw_layer(panel: Panel, layer: Layer, picture: Image.Image, side: int) -> Image.Image:
    """Draw the tokens of a layer over its picture; `side` is the longer side with its padding in pixels."""
    left, top, right, bottom = layer.bounds
    scale = side / max((right - left) * picture.width, (bottom - top) * picture.height)
    size = [max(1, round(length * scale)) for length in (picture.width, picture.height)]
    smooth = Image.Resampling.LANCZOS if scale < ENLARGED else Image.Resampling.NEAREST
    width, height = max(1, round((right - left) * size[0])), max(1, round((bottom - top) * size[1]))
    canvas = Image.new("RGB", (width, height), PADDING)
    shown = picture.convert("RGB").resize((size[0], size[1]), smooth)
    canvas.paste(shown, (round(-left * size[0]), round(-top * size[1])))
    pixels = np.asarray(canvas, np.float64).copy()
    state, heat = np.zeros((height, width), np.uint8), np.full((height, width), np.nan)
    marks = np.zeros((height, width), bool)
    for one in layer.slices:
        x = np.round((np.linspace(one.area[0], one.area[2], one.columns + 1) - left) * size[0]).astype(int)
        y = np.round((np.linspace(one.area[1], one.area[3], one.rows + 1) - top) * size[1]).astype(int)
        cells = np.full((one.rows, one.columns), DROPPED, np.uint8)
        numbers = slice(one.first, one.first + one.tokens)
        cells[panel.kept[numbers].reshape(cells.shape)] = KEPT
        if panel.merged is not None:
            _mark(marks, panel.merged[numbers].reshape(cells.shape), x, y)
        block = np.ix_(range(y[0], y[-1]), range(x[0], x[-1]))
        rows, columns = np.repeat(range(one.rows), np.diff(y)), np.repeat(range(one.columns), np.diff(x))
        state[block] = cells[np.ix_(rows, columns)]
        if panel.heat is not None:
            heat[block] = panel.heat[numbers].reshape(cells.shape)[np.ix_(rows, columns)]
    drawn = _heated(pixels, heat, panel.heat) if panel.heat is not None else _veiled(pixels, state == KEPT, marks)
    drawn = np.where((state == 0)[..., None], _unseen(pixels), drawn)
    return Image.fromarray(drawn.round().clip(0, 255).astype(np.uint8))


def _mark(marks: Bools, merged: Bools, x: Ints, y: Ints) -> None:
    """Put a square into the middle of every merged cell; `x` and `y` are the edges of columns and rows."""
    for row, column in np.argwhere(merged).tolist():
        height, width = y[row + 1] - y[row], x[column + 1] - x[column]
        side = min(max(2, min(height, width) // 4), 9)
        top, left = y[row] + (height - side) // 2, x[column] + (width - side) // 2
        marks[top : top + side, left : left + side] = True


def _veiled(pixels: Pixels, kept: Bools, marks: Bools) -> Pixels:
    """Veil dropped tokens, draw the edge of kept ones, and mark those that were merged."""
    grey = pixels.mean(-1, keepdims=True)
    drawn: Pixels = np.where(kept[..., None], pixels, 0.32 * grey + 0.68 * np.array(VEIL))
    for where, colour in ((_edge(kept), EDGE), (marks, MERGED)):
        drawn[where] = colour
    return drawn


def _edge(kept: Bools) -> Bools:
    """Return kept pixels with a neighbour that is not."""
    around = np.pad(kept, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return kept & ~inner


def _heated(pixels: Pixels, heat: Pixels, values: npt.NDArray[np.float64]) -> Pixels:
    """Colour pixels by a map, from the lowest to the highest of all its values.

    Colours follow the square root, because attention is concentrated on a few tokens.
    """
    low, high = np.nanmin(values), np.nanmax(values)
    place = np.sqrt((np.nan_to_num(heat, nan=low) - low) / (high - low or 1)) * (len(HEAT) - 1)
    colours = np.stack([np.interp(place, range(len(HEAT)), channel) for channel in np.array(HEAT).T], -1)
    grey = pixels.mean(-1, keepdims=True)
    return np.where(np.isnan(heat)[..., None], _unseen(pixels), 0.3 * grey + 0.7 * colours)


def _unseen(pixels: Pixels) -> Pixels:
    """Hatch what no token shows."""
    height, width, _ = pixels.shape
    diagonals = np.arange(height)[:, None, None] + np.arange(width)[None, :, None]
    pale: Pixels = 0.35 * pixels.mean(-1, keepdims=True) + 0.65 * np.array(PAPER)
    return np.where(diagonals % 12 < 3, np.array(FAINT) * 0.5 + pale * 0.5, pale)


def _legend(sheet: Sheet, width: int) -> Image.Image:
    """Name the colours that the sheet uses."""
    panels = [panel for row in sheet.rows for panel in row]
    choices = [panel for panel in panels if panel.heat is None]
    entries: list[tuple[tuple[int, int, int], str]] = []
    if any(not panel.kept.all() for panel in choices):
        entries += [(EDGE, "edge of kept tokens"), (VEIL, "dropped")]
    if any(panel.merged is not None and panel.merged.any() for panel in choices):
        entries.append((MERGED, "dot: kept, replaced by the method"))
    shown = [one for panel in panels for picture in layers(panel.selections) for one in picture]
    if any(len(picture) > 1 for panel in panels for picture in layers(panel.selections)):
        entries.append((PAPER, "small: the tile that shows the whole image"))
    if any(_spills(one) for one in shown):
        entries.append((PADDING, "padding"))
    if any(_covers_less(one) for one in shown):
        entries.append((FAINT, "hatched: seen by no token"))
    if len(choices) < len(panels):
        entries.append((HEAT[3], "map: dark is low, bright is high (square root)"))
    canvas = Image.new("RGB", (width, 400), PAPER)
    pen, left, top = ImageDraw.Draw(canvas), 0, 0
    for colour, text in entries:
        needed = 18 + int(pen.textlength(text, font=font(12))) + 18
        if left and left + needed > width:
            left, top = 0, top + 20
        pen.rectangle((left, top + 2, left + 12, top + 14), fill=colour, outline=INK)
        pen.text((left + 18, top), text, fill=FAINT, font=font(12))
        left += needed
    return canvas.crop((0, 0, width, top + 20 if entries else 1))


def _spills(layer: Layer) -> bool:
    left, top, right, bottom = layer.bounds
    return min(left, top) < -0.002 or max(right, bottom) > 1.002


def _covers_less(layer: Layer) -> bool:
    """Check whether a part of the picture is in no slice."""
    inside = [[min(max(edge, 0), 1) for edge in one.area] for one in layer.slices]
    return sum((right - left) * (bottom - top) for left, top, right, bottom in inside) < 0.995


def _wrapped(lines: Sequence[str], width: int, size: int) -> Image.Image:
    """Draw lines of text, the first in ink, broken at words to fit into `width`."""
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    rows: list[tuple[str, tuple[int, int, int]]] = []
    for number, line in enumerate(lines):
        colour = FAINT if number else INK
        rows += [(part, colour) for part in _broken(line, width, pen, size)]
    canvas = Image.new("RGB", (width, max(1, len(rows) * (size + 5))), PAPER)
    pen = ImageDraw.Draw(canvas)
    for number, (text, colour) in enumerate(rows):
        pen.text((0, number * (size + 5)), text, fill=colour, font=font(size))
    return canvas


def _broken(line: str, width: int, pen: ImageDraw.ImageDraw, size: int) -> list[str]:
    """Break a line at spaces, and words that are too long anywhere."""
    rows = [""]
    for word in line.split():
        joined = f"{rows[-1]} {word}".strip()
        if pen.textlength(joined, font=font(size)) <= width:
            rows[-1] = joined
            continue
        rows += [""] * bool(rows[-1])
        for letter in word:
            if pen.textlength(rows[-1] + letter, font=font(size)) > width:
                rows.append("")
            rows[-1] += letter
    return rows


def _stacked(parts: Sequence[Image.Image], width: int) -> Image.Image:
    """Put parts below each other."""
    canvas = Image.new("RGB", (width, sum(part.height + 6 for part in parts)), PAPER)
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height + 6
    return canvas


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return the sans serif font that comes with matplotlib, which has more letters than Pillow's own."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
