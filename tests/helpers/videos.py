"""Small videos: frame N has brightness 10 N in red."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def frame(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, (10 * number, 0, 0))


def write_folder(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> Path:
    """Write a folder of frames."""
    path.mkdir(parents=True)
    for number in range(frames):
        frame(number, size).save(path / f"{number + 1:05d}.png")
    return path


def write_video(path: Path, frames: int, fps: int = 10) -> Path:
    """Write an MP4 file of grey frames."""
    import cv2
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()
    return path
