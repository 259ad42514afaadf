"""Moving scenes: reproducible, inside the picture, and with answers that their frames show."""

from __future__ import annotations

import numpy as np
import pytest

from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.evaluation.video_files import video_of
from uniprune.synthetic import SIZE
from uniprune.synthetic.motion import DIRECTIONS, FRAMES, MOVING_KINDS, SIDE, MovingScene, Track, sample_moving_scene

kinds = pytest.mark.parametrize("kind", MOVING_KINDS)


def scenes(kind: str, count: int = 100) -> list[MovingScene]:
    rng = np.random.default_rng(5)
    return [sample_moving_scene(kind, rng) for _ in range(count)]


def shown(track: Track) -> list[int]:
    """Frames of the object among the eight that a run shows by default."""
    places = FrameSampling().places(video_of(list(range(FRAMES)), 3.0))  # type: ignore[arg-type]
    return [frame for frame in places if track.seen[0] <= frame <= track.seen[1]]


@kinds
def test_the_same_seed_gives_the_same_clip(kind: str) -> None:
    first, again = (next(iter(scenes(kind, 1))) for _ in range(2))
    assert first == again
    pairs = zip(first.frames(), again.frames(), strict=True)
    assert all(one.tobytes() == other.tobytes() for one, other in pairs)
    assert [image.size for image in first.frames()] == [(SIZE, SIZE)] * FRAMES


@kinds
def test_objects_stay_inside_the_picture_and_apart(kind: str) -> None:
    for scene in scenes(kind):
        for frame in range(FRAMES):
            objects = [track.at(frame) for track in scene.tracks if track.seen[0] <= frame <= track.seen[1]]
            assert all(0 <= one.x <= SIZE - SIDE and 0 <= one.y <= SIZE - SIDE for one in objects)
            apart = [
                abs(one.x - other.x) >= SIDE or abs(one.y - other.y) >= SIDE
                for i, one in enumerate(objects)
                for other in objects[:i]
            ]
            assert all(apart)


@kinds
def test_answers_are_one_of_four_and_not_always_the_same(kind: str) -> None:
    answers = {scene.question.answer for scene in scenes(kind)}
    assert len(answers) >= 4
    for scene in scenes(kind):
        assert len({scene.question.answer, *scene.question.distractors}) == 4


def test_the_first_object_is_the_one_that_comes_first() -> None:
    order = []
    for scene in scenes("first"):
        starts = {track.name: shown(track)[0] for track in scene.tracks}
        assert min(starts, key=lambda name: starts[name]) == scene.question.answer
        assert len(set(starts.values())) == 2
        order.append(next(iter(starts)) == scene.question.answer)
    assert 20 < sum(order) < 80, "the order of drawing does not tell"


def test_every_object_to_count_is_shown() -> None:
    for scene in scenes("count"):
        assert int(scene.question.answer) == len(scene.tracks)
        assert all(map(shown, scene.tracks))


def test_the_object_asked_about_moves_that_way() -> None:
    for scene in scenes("direction"):
        moving, still = scene.tracks
        last, first = moving.at(FRAMES - 1), moving.at(0)
        across, down = DIRECTIONS[scene.question.answer]
        assert (np.sign(last.x - first.x), np.sign(last.y - first.y)) == (across, down)
        assert moving.name in scene.question.text
        assert still.step == (0, 0)
