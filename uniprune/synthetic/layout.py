"""Content of a scene before it is drawn: objects, a word and a sum, with their positions."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

SIZE = 96
"""Width and height of an image in pixels."""
CELL = 8
"""Pixels per visual token; images are GRID x GRID tokens of the tiny models."""
GRID = SIZE // CELL

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLORS = ("red", "green", "blue", "yellow", "purple", "white")
CHARACTERS = "0123456789FHJKLMNPRTUVWXYZ"
"""Characters of words. A–E are left out so that an option letter is never part of a word."""

PLOT = 24
"""Pixels per plot: objects occupy one of 4 x 4 plots each, writing up to three plots of a row."""
OBJECT_SIZES = (15, 17, 19, 21)
PITCH, GLYPH_WIDTH, GLYPH_HEIGHT = 10, 9, 13
"""Distance between characters, and their box, in pixels."""

_HELD_OUT_SHARE = 16


@dataclass(frozen=True)
class Object:
    """A coloured shape; `x`, `y` are its top-left corner and `size` its side, in pixels."""

    shape: str
    color: str
    x: int
    y: int
    size: int


@dataclass(frozen=True)
class Layout:
    """A scene: `objects` in raster order of their plots, a `word` ("" if none) and a sum ("3+5" or "")."""

    objects: tuple[Object, ...]
    word: str
    word_at: tuple[int, int]
    sum: str
    sum_at: tuple[int, int]

    @property
    def total(self) -> int | None:
        """Value of the printed sum."""
        return int(self.sum[0]) + int(self.sum[2]) if self.sum else None

    @property
    def held_out(self) -> bool:
        """Return whether this content is reserved for evaluation (one scene in sixteen, by a hash of the content)."""
        shown = [f"{o.color} {o.shape}" for o in self.objects]
        return zlib.crc32(" ".join([*shown, self.word, self.sum]).encode()) % _HELD_OUT_SHARE == 0

    def count(self, shape: str | None = None, color: str | None = None) -> int:
        """Count the objects of a shape and/or a colour."""
        return sum(shape in (None, o.shape) and color in (None, o.color) for o in self.objects)


def sample_layout(
    rng: np.random.Generator,
    *,
    held_out: bool,
    objects: tuple[int, int] = (2, 6),
    letters: tuple[int, int] = (4, 6),
    word: float = 0.85,
    sum_: float = 0.55,
) -> Layout:
    """Draw a layout from the training split or (`held_out`) the evaluation split.

    Args:
        rng: source of randomness.
        held_out: whether to draw from the evaluation split.
        objects: least and most objects.
        letters: least and most characters of the word.
        word: probability of a word.
        sum_: probability of a printed sum.
    """
    while True:
        layout = _sample(rng, objects, letters, word, sum_)
        if layout.held_out == held_out:
            return layout


def _sample(
    rng: np.random.Generator, count: tuple[int, int], letters: tuple[int, int], word_share: float, sum_share: float
) -> Layout:
    free = np.ones((4, 4), bool)
    rows = rng.permutation(4)
    word, word_at, printed, sum_at = "", (0, 0), "", (0, 0)
    if rng.random() < word_share:
        length = int(rng.integers(letters[0], letters[1] + 1))
        word = "".join(CHARACTERS[i] for i in rng.integers(0, len(CHARACTERS), length))
        word_at = _place_writing(rng, free, int(rows[0]), len(word), 3)
    if rng.random() < sum_share:
        a = int(rng.integers(0, 10))
        printed = f"{a}+{int(rng.integers(0, 10 - a))}"
        sum_at = _place_writing(rng, free, int(rows[1]), 3, 2)

    plots = np.argwhere(free)
    chosen = plots[np.sort(rng.permutation(len(plots))[: int(rng.integers(count[0], count[1] + 1))])]
    objects: list[Object] = []
    for row, column in chosen:
        shape, color = SHAPES[rng.integers(len(SHAPES))], COLORS[rng.integers(len(COLORS))]
        if objects and rng.random() < 0.45:  # repeat an attribute: counts above one, and near misses, become frequent
            other = objects[rng.integers(len(objects))]
            shape, color = (other.shape, color) if rng.random() < 0.6 else (shape, other.color)
        size = int(OBJECT_SIZES[rng.integers(len(OBJECT_SIZES))])
        x, y = (int(k) * PLOT + int(rng.integers(0, PLOT - size + 1)) for k in (column, row))
        objects.append(Object(shape, color, x, y, size))
    return Layout(tuple(objects), word, word_at, printed, sum_at)


def _place_writing(rng: np.random.Generator, free: np.ndarray, row: int, length: int, plots: int) -> tuple[int, int]:
    """Reserve `plots` plots of a row for `length` characters; return the top-left corner in pixels."""
    column = int(rng.integers(0, 4 - plots + 1))
    free[row, column : column + plots] = False
    x = column * PLOT + int(rng.integers(0, plots * PLOT - length * PITCH + 1))
    y = row * PLOT + int(rng.integers(0, PLOT - GLYPH_HEIGHT + 1))
    return x, y
