"""Frames of a video that a run shows: their choice, in this place only, and the arguments of a processor for them.

The rule is that of VLMEvalKit's video datasets (`save_video_frames`). Of F frames, `frames` N shows those numbered
int(i F / (N + 1)) for i from 1 to N, so neither the first nor the last one. `fps` R of a video of V frames per second
shows int(i V / R) for i from 0, int(F / V R) frames in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uniprune.errors import UserError
from uniprune.modeling.messages import Clip, Part, Video
from uniprune.results.records import USUAL_FRAMES
from uniprune.results.remarks import REPEATED

FEWEST = 2
"""Frames of the shortest video; one frame is an image."""


@dataclass(frozen=True)
class FrameSampling:
    """Rule by which frames are chosen.

    Attributes:
        frames: how many; None with `fps`.
        fps: how many per second; None with `frames`.
    """

    frames: int | None = USUAL_FRAMES
    fps: float | None = None

    @classmethod
    def of(cls, frames: int | None, fps: float | None) -> FrameSampling:
        """Return the rule of `--frames` and `--fps`.

        Raises:
            UserError: both are given, or one is out of range.
        """
        if frames is not None and fps is not None:
            raise UserError(f"--frames {frames} and --fps {fps:g} exclude each other; give one of them")
        if frames is not None and frames < FEWEST:
            raise UserError(f"--frames {frames} must be at least {FEWEST}: one frame is an image, not a video")
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise UserError(f"--fps {fps:g} must be a number of frames per second above 0")
        return cls(None, fps) if fps is not None else cls(frames or USUAL_FRAMES)

    def __str__(self) -> str:
        return f"fps={self.fps:g}" if self.fps is not None else f"frames={self.frames}"

    def places(self, video: Video) -> list[int]:
        """Return the numbers of the frames that are shown.

        Raises:
            UserError: the video has fewer than two frames, or fewer are shown.
        """
        if video.frames < FEWEST:
            found = f"{video.frames} frame{'s' * (video.frames != 1)}"
            raise UserError(f"video {video.name} has {found}; expected at least {FEWEST} (one frame is an image)")
        if self.frames is not None:
            step = video.frames / (self.frames + 1)
            return [int(i * step) for i in range(1, self.frames + 1)]
        assert self.fps is not None
        step, seconds = video.fps / self.fps, video.frames / video.fps
        count = int(seconds * self.fps)
        if count < FEWEST:
            raise UserError(
                f"--fps {self.fps:g} shows {count} of the {video.frames} frames of video {video.name} ({seconds:.3g} "
                f"s); expected at least {FEWEST}: give a higher --fps, or --frames"
            )
        return [int(i * step) for i in range(count)]


USUAL = FrameSampling()
"""The rule where the user gives none."""


def sampled(parts: Sequence[Part], sampling: FrameSampling) -> tuple[list[Part], tuple[str, ...]]:
    """Read the chosen frames of the videos of a message; return also remarks on them.

    Raises:
        UserError: a video has too few frames, or frames of several sizes.
    """
    message = [part if part.video is None else Part(clip=_read(part.video, sampling)) for part in parts]
    repeated = any(len(set(part.clip.places)) < len(part.clip.places) for part in message if part.clip is not None)
    return message, (REPEATED,) * repeated


def video_arguments(clips: Sequence[Clip]) -> dict[str, Any]:
    """Return the arguments of a processor's call that are about videos, none without any."""
    if not clips:
        return {}
    metadata = [
        {
            "total_num_frames": clip.video.frames,
            "fps": clip.video.fps,
            "duration": clip.video.frames / clip.video.fps,
            "width": clip.images[0].width,
            "height": clip.images[0].height,
            "frames_indices": list(clip.places),
        }
        for clip in clips
    ]
    return {
        "videos": [np.stack([np.asarray(image) for image in clip.images]) for clip in clips],
        "videos_kwargs": {
            "do_sample_frames": False,
            "video_metadata": metadata,
            "input_data_format": "channels_last",
        },
    }


def _read(video: Video, sampling: FrameSampling) -> Clip:
    """Read the chosen frames of a video."""
    places = sampling.places(video)
    images = tuple(video.read(places))
    if len(sizes := dict.fromkeys(f"{image.width}x{image.height}" for image in images)) > 1:
        raise UserError(f"frames of video {video.name} have different sizes: {', '.join(sizes)}; expected one size")
    return Clip(video, tuple(places), images)
