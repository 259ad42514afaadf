"""Frames of a video: VLMEvalKit's rule, in one place, and what is refused by it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from uniprune.errors import UserError
from uniprune.evaluation.frame_sampling import FrameSampling, sampled, video_arguments
from uniprune.evaluation.video_files import video_of
from uniprune.modeling.messages import Clip, Part, Video
from uniprune.results.remarks import REPEATED


def video(frames: int, fps: float = 10.0, size: tuple[int, int] = (8, 6)) -> Video:
    """A video whose frames are as bright as their number."""
    return video_of([Image.new("RGB", size, (number, 0, 0)) for number in range(frames)], fps, "clip")


def clip(sampling: FrameSampling, shown: Video) -> Clip:
    [part], _ = sampled([Part(video=shown)], sampling)
    assert part.clip is not None
    return part.clip


@pytest.mark.parametrize(
    ("frames", "shown", "places"),
    [(8, 100, [11, 22, 33, 44, 55, 66, 77, 88]), (2, 3, [1, 2]), (4, 4, [0, 1, 2, 3]), (3, 2, [0, 1, 1])],
)
def test_a_number_of_frames_is_spread_without_the_ends(frames: int, shown: int, places: list[int]) -> None:
    found = clip(FrameSampling.of(frames, None), video(shown))
    assert list(found.places) == places
    assert [image.getpixel((0, 0))[0] for image in found.images] == places  # type: ignore[index]


@pytest.mark.parametrize(
    ("fps", "shown", "rate", "places"),
    [
        (1, 35, 10.0, [0, 10, 20]),
        (2, 10, 4.0, [0, 2, 4, 6, 8]),
        (0.5, 50, 10.0, [0, 20]),
        (4, 5, 2.0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_a_rate_starts_at_the_first_frame(fps: float, shown: int, rate: float, places: list[int]) -> None:
    assert FrameSampling.of(None, fps).places(video(shown, rate)) == places


def test_eight_frames_are_shown_by_default() -> None:
    assert FrameSampling.of(None, None) == FrameSampling() == FrameSampling.of(8, None)


def test_frames_shown_several_times_are_remarked() -> None:
    remarks = [sampled([Part(video=video(shown)), Part("?")], FrameSampling(4))[1] for shown in (3, 4)]
    assert remarks == [(REPEATED,), ()]


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (8, 1.0, "--frames 8 and --fps 1 exclude each other"),
        (1, None, "--frames 1 must be at least 2: one frame is an image"),
        (0, None, "--frames 0 must be at least 2"),
        (None, 0.0, "--fps 0 must be .* above 0"),
        (None, float("nan"), "--fps nan must be"),
        (None, float("inf"), "--fps inf must be"),
    ],
)
def test_rules_out_of_range_are_refused(frames: int | None, fps: float | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FrameSampling.of(frames, fps)


@pytest.mark.parametrize(
    ("shown", "sampling", "message"),
    [
        (0, FrameSampling(), "video clip has 0 frames; expected at least 2"),
        (1, FrameSampling(), r"video clip has 1 frame; expected at least 2 \(one frame is an image\)"),
        (
            4,
            FrameSampling(None, 1),
            r"--fps 1 shows 0 of the 4 frames of video clip \(0.4 s\).*higher --fps, or --frames",
        ),
        (19, FrameSampling(None, 1), "--fps 1 shows 1 of the 19 frames"),
    ],
)
def test_too_few_frames_are_refused(shown: int, sampling: FrameSampling, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampled([Part(video=video(shown))], sampling)


def test_frames_of_several_sizes_are_refused() -> None:
    images = [Image.new("RGB", (8, 6))] * 3 + [Image.new("RGB", (8, 7))]
    with pytest.raises(UserError, match="frames of video clip have different sizes: 8x6, 8x7; expected one size"):
        sampled([Part(video=video_of(images, 10.0, "clip"))], FrameSampling(4))


def test_processors_get_the_frames_with_their_places() -> None:
    assert video_arguments([]) == {}
    arguments = video_arguments([clip(FrameSampling(4), video(20))])
    [frames], [metadata] = arguments["videos"], arguments["videos_kwargs"]["video_metadata"]
    assert np.asarray(frames)[:, 0, 0, 0].tolist() == metadata["frames_indices"] == [4, 8, 12, 16]
    assert (metadata["total_num_frames"], metadata["fps"], metadata["duration"]) == (20, 10.0, 2.0)
    assert arguments["videos_kwargs"]["do_sample_frames"] is False
