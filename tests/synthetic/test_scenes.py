"""Scenes: reproducible, split by content, and asked about truthfully."""

from __future__ import annotations

import numpy as np
import pytest

from uniprune.synthetic import GRID, KINDS, SIZE, ask, sample_layout
from uniprune.synthetic.draw import render_array


def layouts(seed: int, held_out: bool, count: int = 200):
    rng = np.random.default_rng(seed)
    return [sample_layout(rng, held_out=held_out) for _ in range(count)]


def test_same_seed_same_picture() -> None:
    first, second = (render_array(layouts(3, False, 1)[0], np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert first[0].shape == (SIZE, SIZE, 3)
    assert first[1].stack().shape == (5, GRID, GRID)


def test_training_and_evaluation_never_share_a_scene() -> None:
    """The split is a function of the content, so equal content can never be on both sides."""
    key = lambda x: (tuple((o.shape, o.color) for o in x.objects), x.word, x.sum)  # noqa: E731
    train, held = {key(x) for x in layouts(0, False, 2000)}, {key(x) for x in layouts(1, True, 500)}
    assert train and held and not train & held
    assert all(x.held_out for x in layouts(2, True)) and not any(x.held_out for x in layouts(2, False))


def test_token_labels_lie_where_things_are() -> None:
    for layout in layouts(5, False, 50):
        _, labels = render_array(layout, np.random.default_rng(0))
        assert labels.center.sum() == len(layout.objects)
        assert set(np.unique(labels.slot)) <= {0, *range(1, len(layout.word) + 1), 7, 8, 9}
        covered = (labels.shape > 0) | (labels.glyph > 0)
        assert 0 < covered.sum() < GRID * GRID
        assert np.array_equal(labels.shape > 0, labels.color > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_scene(kind: str) -> None:
    """Answers recomputed from the layout by other means."""
    rng, asked = np.random.default_rng(7), 0
    for layout in layouts(11, False):
        question = ask(kind, layout, rng)
        if question is None:
            continue
        asked += 1
        assert question.answer not in question.distractors
        shapes = [o.shape for o in layout.objects]
        words = question.text.rstrip("?").split()
        if kind == "count" and words[2] == "objects":
            assert question.answer == str(len(shapes))
        if kind == "color-of":
            (only,) = [o for o in layout.objects if o.shape == words[-1]]
            assert question.answer == only.color
        if kind == "exists" and len(words) == 8 and words[4] != "object":
            seen = any((o.color, o.shape) == (words[3], words[4]) for o in layout.objects)
            assert question.answer == ("Yes" if seen else "No")
        if kind == "sum":
            assert int(question.answer) == eval_sum(layout.sum)
        if kind == "character":
            place = ("first", "second", "third", "fourth", "fifth", "sixth").index(words[3])
            assert question.answer == layout.word[place]
        if kind == "word-check":
            assert (question.answer == "Yes") == (words[-1] == layout.word)
        if question.distractors:
            options, letter = question.options(rng)
            assert options["ABCDE".index(letter)] == question.answer and len(set(options)) == len(options)
    assert asked > 20


def eval_sum(text: str) -> int:
    left, right = text.split("+")
    return int(left) + int(right)


def test_yes_and_no_are_balanced() -> None:
    rng = np.random.default_rng(0)
    for kind in ("exists", "attribute", "count-check", "sum-check", "word-check"):
        answers = [q.answer for x in layouts(13, False, 400) if (q := ask(kind, x, rng)) is not None]
        assert 0.4 < answers.count("Yes") / len(answers) < 0.6
