"""The mini video benchmark: short clips of moving shapes, in VLMEvalKit's format of MVBench, scored by the kit itself.

Table and frames are written on first use to `<data-dir>/mini-video-v<version>/`, every clip as a folder of frames.
Which object comes first, how many there are and which way one moves shows in no single frame. The tiny models were
never trained on videos, so their scores are near chance, 25 %: the benchmark is for running what is around a model.
"""

from __future__ import annotations

import dataclasses

from uniprune.evaluation.dataset import DataOptions, Dataset
from uniprune.registry import register_benchmark

from .._kit.video_tasks import VIDEO_TASKS

MAX_NEW_TOKENS = 16
"""Longest answer of a tiny model, in tokens."""


@register_benchmark("mini-video", suite="mini-video", ability="video", metric="accuracy", judge=False)
def load(options: DataOptions) -> Dataset:
    """Clips of moving shapes with the questions of MVBench; tiny models, never trained on videos, score near chance."""
    # Listing the benchmarks must not load pandas, torch and the kit.
    from .._kit.video_dataset import VideoDataset
    from .generate import NAME, VERSION, write

    folder = options.data_dir / f"{NAME}-v{VERSION}"
    if not folder.exists():
        write(folder)
    task = dataclasses.replace(VIDEO_TASKS["mvbench"], max_new_tokens=MAX_NEW_TOKENS)
    return VideoDataset(NAME, task, folder / f"{NAME}.tsv", options)
