"""Clips of the mini video benchmark: every one depends on its number and `SEED` only."""

from __future__ import annotations

import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np

from uniprune.synthetic.motion import MOVING_KINDS, sample_moving_scene

NAME = "mini-video"
VERSION = "1"
"""Raised whenever table or frames change, so that scores of different videos are never mixed."""
SEED = 20261127
CLIPS = 60
TASK_TYPES = {"first": "Character Order", "count": "Moving Count", "direction": "Moving Direction"}
"""Kind of question -> the task of MVBench that is nearest."""


def write(folder: Path, clips: int = CLIPS) -> None:
    """Write table and frames, atomically."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        rows = [_row(number, partial) for number in range(clips)]
        with (partial / f"{NAME}.tsv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        partial.chmod(0o755)
        if not folder.exists():  # another process may have written the same
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _row(number: int, folder: Path) -> dict[str, object]:
    """Draw a clip, write its frames and return its row."""
    kind = list(MOVING_KINDS)[number % len(MOVING_KINDS)]
    rng = np.random.default_rng((SEED, number))
    scene = sample_moving_scene(kind, rng)
    clip = f"{number:03d}"
    frames = folder / "video" / clip
    frames.mkdir(parents=True)
    for place, image in enumerate(scene.frames(), 1):
        image.save(frames / f"{place:05d}.png")
    options, _ = scene.question.options(rng)
    return {
        "index": number,
        "task_type": TASK_TYPES[kind],
        "prefix": "video",
        "data_type": "frame",
        "bound": False,
        "start": "",
        "end": "",
        "video": clip,
        "question": scene.question.text,
        "answer": scene.question.answer,
        "candidates": str(options),
    }
