"""Clips that cannot be shown: a run names each in one line, leaves it out, and scores the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.test_video_rows import evaluate
from tests.helpers.videos import write_folder, write_video
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.evaluation.video_files import opened
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import Placement, load
from uniprune.modeling.messages import Part

pytestmark = pytest.mark.end_to_end

REASONS = {
    "absent.mp4": "absent.mp4 does not exist",
    "empty.mp4": "video empty.mp4 is empty (0 bytes)",
    "cut.mp4": "video cut.mp4 cannot be decoded: it is damaged, cut off or no video",
    "text.mp4": "video text.mp4 cannot be decoded: it is damaged, cut off or no video",
    "one.mp4": "video one.mp4 has 1 frame; expected at least 2 (one frame is an image)",
    "none": "video none has 0 frames; expected at least 2 (one frame is an image)",
    "one": "video one has 1 frame; expected at least 2 (one frame is an image)",
    "frame": "frame 00002.png of video frame is damaged, cut off or no image",
    "blank": "frame 00003.png of video blank is empty (0 bytes)",
    "sizes": "frames of video sizes have different sizes: 64x48, 48x64; expected one size",
    "typed": "a text of the message contains '<video>', which the model reads as an image or a video",
}
"""Clip -> reason that is recorded; `typed` is whole, and its question has a placeholder."""


def write(folder: Path) -> None:
    whole = write_video(folder / "whole.mp4", 20).read_bytes()
    write_video(folder / "one.mp4", 1)
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    for name, frames in {"none": 0, "one": 1, "frame": 4, "blank": 4, "sizes": 4, "typed": 4}.items():
        write_folder(folder / name, frames)
    (folder / "frame" / "00002.png").write_text("no image")
    (folder / "blank" / "00003.png").write_bytes(b"")
    write_folder(folder / "turned", 4, (48, 64))
    (folder / "sizes" / "00003.png").write_bytes((folder / "turned" / "00003.png").read_bytes())


def row(folder: Path, name: str) -> Request:
    text = "how many <video> ?" if name == "typed" else "how many ?"
    load = lambda: [Part(video=opened(folder / name, fps=3.0)), Part(text)]  # noqa: E731
    return Request(name, load, text, 2, wording=(0, text), videos=1)


def test_every_clip_is_one_line_and_left_out(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("decord")
    write(tmp_path)
    loaded = load(ModelEntry(name="tiny", source=str(checkpoint("qwen2.5-vl"))), Placement("float32", "sdpa", "cpu"))
    rows = [row(tmp_path, name) for name in ("whole.mp4", *REASONS, "turned")]
    record, printed = evaluate(loaded, tmp_path / "out", rows, sampling=FrameSampling(3))
    entry = record.datasets["clips"]
    assert set(entry.faulty) == set(REASONS)
    for name, reason in REASONS.items():
        assert reason in entry.faulty[name]
        assert "\n" not in entry.faulty[name]
        assert f"row {name} is left out: " in " ".join(printed.split())
    assert entry.score is not None
    assert (entry.answered, entry.refused, entry.score.rows) == (2, len(REASONS), 2)
