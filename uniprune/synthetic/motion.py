"""Moving scenes: shapes that appear, leave and move in a few seconds of video, with questions about time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from uniprune.synthetic.draw import render
from uniprune.synthetic.layout import COLORS, PLOT, SHAPES, SIZE, Layout, Object
from uniprune.synthetic.questions import Question

FRAMES = 12
"""Frames of a clip."""
MOVE = 5
"""Pixels that an object moves from one frame to the next."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Way that an object moves -> its step."""
SIDE = 19
"""Side of every object, in pixels."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Track:
    """An object over time.

    Attributes:
        shape: one of `SHAPES`.
        color: one of `COLORS`.
        start: its top-left corner in the first frame, in pixels.
        step: pixels that it moves per frame.
        seen: first and last frame that show it.
    """

    shape: str
    color: str
    start: tuple[int, int]
    step: tuple[int, int] = (0, 0)
    seen: tuple[int, int] = (0, FRAMES - 1)

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.color} {self.shape}"

    def at(self, frame: int) -> Object:
        """Return the object in a frame."""
        (x, y), (across, down) = self.start, self.step
        return Object(self.shape, self.color, x + across * frame, y + down * frame, SIDE)


@dataclass(frozen=True)
class MovingScene:
    """A clip before it is drawn, and the question about it.

    Attributes:
        tracks: the objects.
        question: the question; all its options are of one kind.
        seed: of background and colours, which stay as they are from frame to frame.
    """

    tracks: tuple[Track, ...]
    question: Question
    seed: int

    def frames(self) -> Iterator[Image.Image]:
        """Draw the frames."""
        for frame in range(FRAMES):
            objects = tuple(track.at(frame) for track in self.tracks if track.seen[0] <= frame <= track.seen[1])
            yield render(Layout(objects, "", (0, 0), "", (0, 0)), np.random.default_rng(self.seed))


def sample_moving_scene(kind: str, rng: Rng) -> MovingScene:
    """Draw a scene for a question of one of `MOVING_KINDS`."""
    tracks, question = MOVING_KINDS[kind](rng)
    return MovingScene(tuple(tracks), question, int(rng.integers(2**31)))


def _first(rng: Rng) -> tuple[Sequence[Track], Question]:
    """Two objects stay once they have come, the second at least five frames after the first."""
    names, places = _names(rng, 4), _places(rng, 2)
    starts = int(rng.integers(0, 3)), int(rng.integers(7, 10))
    tracks = [
        Track(*name, start=place, seen=(start, FRAMES - 1))
        for name, place, start in zip(names, places, starts, strict=False)
    ]
    answer, *others = [f"{color} {shape}" for shape, color in names]
    order = rng.permutation(2)  # the object drawn first must not be the one that came first
    return [tracks[i] for i in order], Question("first", "Which object is shown first?", answer, tuple(others))


def _count(rng: Rng) -> tuple[Sequence[Track], Question]:
    """One to four objects come one after the other, each for at least four frames; no frame need show all."""
    number = int(rng.integers(1, 5))
    tracks = []
    for name, place in zip(_names(rng, number), _places(rng, number), strict=True):
        start = int(rng.integers(0, FRAMES - 5))
        tracks.append(Track(*name, start=place, seen=(start, start + 4)))
    others = tuple(str(n) for n in range(1, 5) if n != number)
    return tracks, Question("count", "How many objects are shown?", str(number), others)


def _direction(rng: Rng) -> tuple[Sequence[Track], Question]:
    """One object moves along a row or column of plots, another one stays in a far corner of the rest."""
    way = list(DIRECTIONS)[rng.integers(4)]
    across, down = DIRECTIONS[way]
    (moving, still) = _names(rng, 2)
    begin = {-1: SIZE - SIDE - 1, 0: PLOT + int(rng.integers(0, PLOT)), 1: 1}
    track = Track(*moving, start=(begin[across], begin[down]), step=(MOVE * across, MOVE * down))
    corner = (2, SIZE - SIDE - 2)[rng.integers(2)]
    rest = Track(*still, start=(corner, SIZE - SIDE - 2) if across else (SIZE - SIDE - 2, corner))
    text = f"Which way does the {track.name} move?"
    others = tuple(name for name in DIRECTIONS if name != way)
    return [track, rest], Question("direction", text, way, others)


def _names(rng: Rng, count: int) -> list[tuple[str, str]]:
    """Draw shapes and colours, of which no two are the same pair."""
    pairs = [(shape, color) for shape in SHAPES for color in COLORS]
    return [pairs[i] for i in rng.permutation(len(pairs))[:count]]


def _places(rng: Rng, count: int) -> list[tuple[int, int]]:
    """Draw top-left corners in different plots."""
    plots = rng.permutation((SIZE // PLOT) ** 2)[:count]
    return [(int(plot % 4) * PLOT + 2, int(plot // 4) * PLOT + 2) for plot in plots]


MOVING_KINDS: dict[str, Callable[[Rng], tuple[Sequence[Track], Question]]] = {
    "first": _first,
    "count": _count,
    "direction": _direction,
}
"""Kind of question -> function that draws tracks and the question about them."""
