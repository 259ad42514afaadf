"""Drawn scenes with questions, for the training of the embedded models and for the mini suite.

A scene is a noisy 96 x 96 background with two to six coloured shapes, a word of four to six characters and a printed
sum. Everything is drawn from a seed, a few thousand scenes a second, so nothing is stored or downloaded. Scenes are
split by a hash of their content: `Layout.held_out` is true for one in sixteen, training uses the others only, so no
content of the mini suite was ever trained on.
"""

from uniprune.synthetic.draw import render
from uniprune.synthetic.layout import (
    CELL,
    CHARACTERS,
    COLORS,
    GRID,
    SHAPES,
    SIZE,
    Layout,
    Object,
    sample_layout,
)
from uniprune.synthetic.questions import INSTRUCTIONS, KINDS, Question, ask

__all__ = [
    "CELL",
    "CHARACTERS",
    "COLORS",
    "GRID",
    "INSTRUCTIONS",
    "KINDS",
    "SHAPES",
    "SIZE",
    "Layout",
    "Object",
    "Question",
    "ask",
    "render",
    "sample_layout",
]
