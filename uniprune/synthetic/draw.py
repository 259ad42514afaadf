"""Draw layouts as pixels, with the dense labels that training uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from uniprune.synthetic.layout import (
    CELL,
    CHARACTERS,
    COLORS,
    GLYPH_HEIGHT,
    GLYPH_WIDTH,
    GRID,
    PITCH,
    SHAPES,
    SIZE,
    Layout,
)

RGB = {
    "red": (225, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 235),
    "yellow": (240, 215, 40),
    "purple": (165, 50, 190),
    "white": (245, 245, 245),
}
GLYPHS = CHARACTERS + "+"
WORD_SLOTS, SUM_SLOTS = 6, 3

Array = np.ndarray
_MIN_COVER = 8.0
"""Pixels of a token that an object or character must cover to label the token."""


@dataclass
class TokenLabels:
    """Labels per visual token, [GRID, GRID] integers; 0 for background.

    Attributes:
        shape: 1 + index of the object's shape.
        color: 1 + index of the object's colour.
        glyph: 1 + index into GLYPHS.
        slot: 1 … 6 position in the word, 7 … 9 in the sum.
        center: 1 at an object's centre.
    """

    shape: Array
    color: Array
    glyph: Array
    slot: Array
    center: Array

    def stack(self) -> Array:
        """Stack the labels to [5, GRID, GRID] in the order of the attributes."""
        return np.stack([self.shape, self.color, self.glyph, self.slot, self.center])


def render(layout: Layout, rng: np.random.Generator) -> Image.Image:
    """Draw a layout; `rng` chooses background and colour jitter."""
    return Image.fromarray(render_array(layout, rng)[0])


def render_array(layout: Layout, rng: np.random.Generator) -> tuple[Array, TokenLabels]:
    """Draw a layout as [SIZE, SIZE, 3] uint8 pixels, with the labels of every visual token."""
    canvas = _Canvas(_background(rng))
    for o in layout.objects:
        color = np.asarray(RGB[o.color], np.float32) + rng.normal(0, 8, 3).astype(np.float32)
        canvas.paint(
            _shape_mask(o.shape, o.size),
            o.x,
            o.y,
            color,
            shape=SHAPES.index(o.shape) + 1,
            color_=COLORS.index(o.color) + 1,
        )
        middle = o.size // 2
        canvas.labels.center[(o.y + middle) // CELL, (o.x + middle) // CELL] = 1
    ink = np.float32(15) if canvas.pixels.mean() > 110 else np.float32(250)
    canvas.write(layout.word, layout.word_at, np.full(3, ink, np.float32), first_slot=1)
    canvas.write(layout.sum, layout.sum_at, np.asarray((255, 140, 0), np.float32), first_slot=WORD_SLOTS + 1)
    return np.clip(canvas.pixels, 0, 255).astype(np.uint8), canvas.labels


class _Canvas:
    """Pixels being painted, and for every token the label of the object or character that covers it most."""

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels
        self.labels = TokenLabels(*(np.zeros((GRID, GRID), np.int64) for _ in range(5)))
        self._cover = np.full((GRID, GRID), _MIN_COVER, np.float32)

    def paint(
        self, mask: Array, x: int, y: int, rgb: Array, *, shape: int = 0, color_: int = 0, glyph: int = 0, slot: int = 0
    ) -> None:
        height, width = mask.shape
        region = self.pixels[y : y + height, x : x + width]
        region += mask[..., None] * (rgb - region)
        top, left = y // CELL, x // CELL
        bottom, right = (y + height - 1) // CELL + 1, (x + width - 1) // CELL + 1
        block = np.zeros(((bottom - top) * CELL, (right - left) * CELL), np.float32)
        block[y - top * CELL : y - top * CELL + height, x - left * CELL : x - left * CELL + width] = mask
        cover = block.reshape(bottom - top, CELL, right - left, CELL).sum((1, 3))
        where = (slice(top, bottom), slice(left, right))
        wins = cover > self._cover[where]
        self._cover[where][wins] = cover[wins]
        for array, value in (
            (self.labels.shape, shape),
            (self.labels.color, color_),
            (self.labels.glyph, glyph),
            (self.labels.slot, slot),
        ):
            array[where][wins] = value

    def write(self, text: str, at: tuple[int, int], rgb: Array, first_slot: int) -> None:
        for i, character in enumerate(text):
            glyph = GLYPHS.index(character) + 1
            self.paint(_glyph_mask(character), at[0] + PITCH * i, at[1], rgb, glyph=glyph, slot=first_slot + i)


@cache
def _shape_mask(shape: str, size: int) -> Array:
    """Draw [size, size] coverage in 0..1, four times larger and averaged down."""
    scale = 4
    image = Image.new("L", (size * scale, size * scale), 0)
    draw, end = ImageDraw.Draw(image), size * scale - 1
    if shape == "circle":
        draw.ellipse([0, 0, end, end], fill=255)
    elif shape == "square":
        draw.rectangle([end * 0.06, end * 0.06, end * 0.94, end * 0.94], fill=255)
    elif shape == "triangle":
        draw.polygon([(end / 2, 0), (end, end), (0, end)], fill=255)
    elif shape == "cross":
        draw.rectangle([end * 0.34, 0, end * 0.66, end], fill=255)
        draw.rectangle([0, end * 0.34, end, end * 0.66], fill=255)
    else:
        draw.ellipse([0, 0, end, end], fill=255)
        draw.ellipse([end * 0.27, end * 0.27, end * 0.73, end * 0.73], fill=0)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32) / 255


@cache
def _glyph_mask(character: str) -> Array:
    """Draw [GLYPH_HEIGHT, GLYPH_WIDTH] coverage of one character of Pillow's built-in font."""
    scale = 3
    font = ImageFont.load_default(size=16 * scale)
    left, top, right, bottom = (round(v) for v in font.getbbox(character))
    image = Image.new("L", (right - left + 2, bottom - top + 2), 0)
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, fill=255, font=font, stroke_width=scale // 2)
    width = max(4, min(GLYPH_WIDTH, round((right - left) / scale)))
    height = max(4, min(GLYPH_HEIGHT, round((bottom - top) / scale)))
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    out = np.zeros((GLYPH_HEIGHT, GLYPH_WIDTH), np.float32)
    y, x = (GLYPH_HEIGHT - height) // 2, (GLYPH_WIDTH - width) // 2
    out[y : y + height, x : x + width] = small
    clipped: Array = np.clip(out * 1.2, 0, 1)
    return clipped


def _background(rng: np.random.Generator) -> Array:
    """Crop one of a fixed set of noisy textures at random, float32 [SIZE, SIZE, 3]."""
    textures = _textures()
    x, y = rng.integers(0, 32, 2)
    crop: Array = textures[rng.integers(len(textures))][y : y + SIZE, x : x + SIZE]
    return (crop[:, ::-1] if rng.random() < 0.5 else crop).copy()


@cache
def _textures(count: int = 192, side: int = 128, seed: int = 7) -> Array:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    out = []
    for _ in range(count):
        coarse = rng.normal(0, 1, (9, 9, 3)) * rng.uniform(4, 16)
        channels = [
            Image.fromarray(coarse[..., c].astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.1, 0.6)
        stripes = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * frequency)[..., None] * rng.uniform(0, 8)
        grain = rng.normal(0, rng.uniform(2, 8), (side, side, 1))
        out.append(rng.uniform(50, 140, 3) + np.stack([np.asarray(c) for c in channels], -1) + stripes + grain)
    return np.stack(out).astype(np.float32)
