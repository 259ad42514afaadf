"""Questions about a scene, with answers known by construction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from uniprune.synthetic.layout import CHARACTERS, COLORS, PLOT, SHAPES, Layout

Rng = np.random.Generator

PLURAL = {shape: "crosses" if shape == "cross" else shape + "s" for shape in SHAPES}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")

INSTRUCTIONS: dict[str, Callable[[str, str], str]] = {
    "Answer twice.": lambda noun, value: f"{value} {value}",
    "Answer in brackets.": lambda noun, value: f"( {value})",
    "Answer in a sentence.": lambda noun, value: f"the {noun} is {value}.",
    "Answer as a list.": lambda noun, value: f"- {value}",
}
"""Instruction -> form of the answer `value` about `noun` that follows it."""


@dataclass(frozen=True)
class Question:
    """A question about one scene.

    Attributes:
        kind: one of the keys of `KINDS`.
        text: the bare question.
        answer: the correct answer as text.
        distractors: wrong answers of the same type, for options.
        noun: subject of the answer ("circle").
    """

    kind: str
    text: str
    answer: str
    distractors: tuple[str, ...] = ()
    noun: str = ""

    def options(self, rng: Rng, count: int = 4) -> tuple[list[str], str]:
        """Draw (option texts in random order, letter of the correct one)."""
        chosen = [self.distractors[i] for i in rng.permutation(len(self.distractors))[: count - 1]]
        place = int(rng.integers(len(chosen) + 1))
        chosen.insert(place, self.answer)
        return chosen, "ABCDE"[place]

    def instructed(self, rng: Rng) -> Question:
        """Return the same question with a random formatting instruction, answered accordingly."""
        names = list(INSTRUCTIONS)
        instruction = names[rng.integers(len(names))]
        answer = INSTRUCTIONS[instruction](self.noun, self.answer)
        return Question("instruct", f"{self.text} {instruction}", answer, (), self.noun)


def ask(kind: str, layout: Layout, rng: Rng, yes: bool | None = None) -> Question | None:
    """Draw a question of `kind` about `layout`; None if the scene does not allow one.

    `yes` is the answer of yes/no kinds; with None both are equally likely.
    """
    return KINDS[kind](layout, rng, bool(rng.random() < 0.5) if yes is None else yes)


def _pick(rng: Rng, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _yes(flag: bool) -> str:
    return "Yes" if flag else "No"


def _numbers(value: int, low: int = 0) -> tuple[str, ...]:
    """Return wrong numbers near the correct one."""
    return tuple(str(n) for n in range(max(low, value - 3), value + 4) if n != value and n >= low)


def _exists(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    pairs = {(o.shape, o.color) for o in layout.objects}
    shapes, colors = {s for s, _ in pairs}, {c for _, c in pairs}
    form = rng.random()
    if form < 0.25:
        pool = [s for s in SHAPES if (s in shapes) == yes]
        if pool:
            return Question("exists", f"Is there a {_pick(rng, pool)} in the image?", _yes(yes))
    if form < 0.4:
        pool = [c for c in COLORS if (c in colors) == yes]
        if pool:
            return Question("exists", f"Is there a {_pick(rng, pool)} object in the image?", _yes(yes))
    if yes:
        candidates = sorted(pairs)
    else:
        absent = [(s, c) for s in SHAPES for c in COLORS if (s, c) not in pairs]
        half_true = [p for p in absent if p[0] in shapes or p[1] in colors]
        candidates = half_true if half_true and rng.random() < 0.7 else absent
    shape, color = candidates[rng.integers(len(candidates))]
    return Question("exists", f"Is there a {color} {shape} in the image?", _yes(yes))


def _unique(layout: Layout) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (shape, colour) of objects whose shape, and of objects whose colour, occurs once."""
    by_shape = [(o.shape, o.color) for o in layout.objects if layout.count(shape=o.shape) == 1]
    by_color = [(o.shape, o.color) for o in layout.objects if layout.count(color=o.color) == 1]
    return by_shape, by_color


def _attribute(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    by_shape, _ = _unique(layout)
    if not by_shape:
        return None
    shape, color = by_shape[rng.integers(len(by_shape))]
    shown = color if yes else _pick(rng, [c for c in COLORS if c != color])
    return Question("attribute", f"Is the {shape} {shown}?", _yes(yes))


def _color_of(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    by_shape, _ = _unique(layout)
    if not by_shape:
        return None
    shape, color = by_shape[rng.integers(len(by_shape))]
    others = tuple(c for c in COLORS if c != color)
    return Question("color-of", f"What color is the {shape}?", color, others, shape)


def _shape_of(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    _, by_color = _unique(layout)
    if not by_color:
        return None
    shape, color = by_color[rng.integers(len(by_color))]
    others = tuple(s for s in SHAPES if s != shape)
    return Question("shape-of", f"What shape is the {color} object?", shape, others, f"{color} object")


def _absent_color(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    """Ask an open question about an object that may be absent: "none" is then the answer."""
    absent = [s for s in SHAPES if not layout.count(shape=s)]
    if absent and yes:
        return Question("absent-color", f"What color is the {_pick(rng, absent)}?", "none")
    return _color_of(layout, rng, yes)


def _countable(layout: Layout, rng: Rng) -> tuple[str, int]:
    """Draw (plural noun, count), mostly about something present."""
    form, present = rng.random(), rng.random() < 0.85
    if form < 0.2:
        return "objects", len(layout.objects)
    target = layout.objects[rng.integers(len(layout.objects))]
    if form < 0.65:
        shape = target.shape if present else _pick(rng, SHAPES)
        return PLURAL[shape], layout.count(shape=shape)
    color = target.color if present else _pick(rng, COLORS)
    return f"{color} objects", layout.count(color=color)


def _count(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    noun, number = _countable(layout, rng)
    return Question("count", f"How many {noun} are there?", str(number), _numbers(number), noun)


def _count_check(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    noun, number = _countable(layout, rng)
    shown = number if yes else int(_pick(rng, _numbers(number)))
    return Question("count-check", f"Is the number of {noun} {shown}?", _yes(yes))


def _sum(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    if layout.total is None:
        return None
    return Question("sum", "What is the sum?", str(layout.total), _numbers(layout.total), "sum")


def _sum_check(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    if layout.total is None:
        return None
    shown = layout.total if yes else int(_pick(rng, _numbers(layout.total)))
    return Question("sum-check", f"Is the sum {shown}?", _yes(yes))


def _read(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    return Question("read", "What is the word?", layout.word) if layout.word else None


def _word_check(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    if not layout.word:
        return None
    shown = layout.word if yes else "".join(_pick(rng, CHARACTERS) for _ in layout.word)
    return Question("word-check", f"Is the word {shown}?", _yes(shown == layout.word))


def _character(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    if not layout.word:
        return None
    place = int(rng.integers(len(layout.word)))
    answer = layout.word[place]
    others = tuple(c for c in dict.fromkeys(layout.word + CHARACTERS) if c != answer)
    chosen = tuple(others[i] for i in rng.permutation(len(others))[:4])
    return Question("character", f"What is the {ORDINALS[place]} character of the word?", answer, chosen, "character")


def _describe(layout: Layout, rng: Rng, yes: bool) -> Question | None:
    """Make a dense caption: every object in raster order of the plots."""
    order = sorted(layout.objects, key=lambda o: (o.y // PLOT, o.x // PLOT))
    return Question("describe", "List the objects.", " ".join(f"{o.color} {o.shape}" for o in order))


KINDS: dict[str, Callable[[Layout, Rng, bool], Question | None]] = {
    "exists": _exists,
    "attribute": _attribute,
    "color-of": _color_of,
    "shape-of": _shape_of,
    "absent-color": _absent_color,
    "count": _count,
    "count-check": _count_check,
    "sum": _sum,
    "sum-check": _sum_check,
    "read": _read,
    "word-check": _word_check,
    "character": _character,
    "describe": _describe,
}
