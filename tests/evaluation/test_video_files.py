"""Videos as files and folders of frames; damaged ones are one line each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.videos import write_folder, write_video
from uniprune.errors import UserError
from uniprune.evaluation.frame_sampling import FrameSampling, sampled
from uniprune.evaluation.video_files import opened, video_of
from uniprune.modeling.messages import Part


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    video = opened(write_folder(tmp_path / "clip", 12), fps=3.0)
    assert (video.frames, video.fps, video.name) == (12, 3.0, "clip")
    assert [image.getpixel((0, 0)) for image in video.read([0, 9, 10])] == [(0, 0, 0), (90, 0, 0), (100, 0, 0)]
    with pytest.raises(UserError, match="clip is a folder of frames, whose rate is unknown"):
        opened(tmp_path / "clip")


def test_a_file_states_its_rate(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    video = opened(write_video(tmp_path / "clip.mp4", 20, fps=10), fps=3.0)
    assert (video.frames, video.fps) == (20, 10.0)
    brightness = [float(np.asarray(image)[..., 0].mean()) for image in video.read([0, 5, 19])]
    assert brightness == pytest.approx([0, 50, 190], abs=6)


def test_bad_videos_are_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    whole = write_video(tmp_path / "whole.mp4", 20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "none").mkdir()
    for name, message in {
        "absent.mp4": "absent.mp4 does not exist",
        "empty.mp4": r"video empty.mp4 is empty \(0 bytes\)",
        "cut.mp4": "video cut.mp4 cannot be decoded: it is damaged, cut off or no video",
        "text.mp4": "video text.mp4 cannot be decoded",
        "none": "video none has 0 frames; expected at least 2",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            sampled([Part(video=opened(tmp_path / name, fps=3.0))], FrameSampling())
        assert "\n" not in str(caught.value)


def test_a_damaged_frame_is_named_where_it_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", 4)
    (folder / "00001.png").write_bytes(b"")
    (folder / "00002.png").write_text("no image")
    whole = (folder / "00003.png").read_bytes()
    (folder / "00003.png").write_bytes(whole[: len(whole) // 2])
    video = opened(folder, fps=3.0)
    with pytest.raises(UserError, match=r"^frame 00001\.png of video clip is empty \(0 bytes\)$"):
        video.read([0, 3])
    for place in (1, 2):
        with pytest.raises(UserError, match=rf"^frame 0000{place + 1}\.png of video clip is damaged, cut off or no im"):
            video.read([place])
    assert video.read([3])[0].size == (64, 48)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_a_video_has_a_rate(fps: float) -> None:
    with pytest.raises(UserError, match="frames per second; expected a number above 0"):
        video_of([Image.new("RGB", (8, 8))] * 2, fps)
