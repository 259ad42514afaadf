"""Table of the video datasets, one `Task` each; they are scored by matching."""

from __future__ import annotations

from typing import Any

from . import video_items as items
from .task import Task

_VIDEO: dict[str, Any] = {
    "suite": "video",
    "ability": "video",
    "metric": "accuracy",
    "literals": ("candidates",),
    "max_new_tokens": 128,
}
_OPTIONS: dict[str, Any] = {
    **_VIDEO,
    "columns": ("index", "video", "question", "answer", "candidates", "task_type", "prefix"),
    "fault": items.candidates_fault,
    "video": lambda row: f"{row['prefix']}/{row['video']}",
}

VIDEO_TASKS: dict[str, Task] = {
    "video-mme": Task(
        **_VIDEO,
        kit_name="Video-MME",
        rows=2_700,
        module="videomme",
        cls="VideoMME",
        summary="Video-MME without subtitles: videos of seconds to an hour (arXiv 2405.21075)",
        columns=(
            *("index", "video", "question", "answer", "candidates"),
            *("duration", "domain", "sub_category", "task_type"),
        ),
        allowed={"answer": frozenset("ABCD"), "duration": frozenset({"short", "medium", "long"})},
        fault=items.letter_fault,
        credits=items.lettered("videomme"),
        video=lambda row: f"video/{row['video']}.mp4",
    ),
    "mvbench": Task(
        **_OPTIONS,
        kit_name="MVBench_MP4",
        rows=4_000,
        rows_known=False,
        module="mvbench",
        cls="MVBench_MP4",
        summary="MVBench, all videos as MP4: twenty tasks about time (arXiv 2311.17005)",
        credits=items.matched,
    ),
    "mlvu": Task(
        **_OPTIONS,
        kit_name="MLVU_MCQ",
        rows=2_174,
        rows_known=False,
        module="mlvu",
        cls="MLVU_MCQ",
        summary="MLVU dev, the seven multiple-choice tasks (M-Avg): long videos (arXiv 2406.04264)",
        credits=items.bracketed,
    ),
    "longvideobench": Task(
        **_VIDEO,
        kit_name="LongVideoBench",
        rows=1_337,
        module="longvideobench",
        cls="LongVideoBench",
        summary="LongVideoBench validation without subtitles: videos up to an hour (arXiv 2407.15754)",
        columns=(
            *("index", "video", "video_path", "question", "candidates"),
            *("correct_choice", "question_category", "duration_group"),
        ),
        allowed={"duration_group": frozenset({"15", "60", "600", "3600"})},
        fault=items.number_fault,
        labels=lambda row, place, head: {
            "index": place,
            **{name: int(row[name]) for name in ("correct_choice", "duration_group")},
        },
        credits=items.lettered("longvideobench"),
        video=lambda row: row["video_path"],
    ),
}
"""Registered name -> task."""
MD5_FIELD = {"mvbench": "MP4_MD5"}
"""Name -> attribute of the kit's class with the md5 of its table, where it is not `MD5`."""
REPOSITORY = {
    "video-mme": "lmms-lab/Video-MME",
    "mvbench": "OpenGVLab/MVBench (revision video)",
    "mlvu": "MLVU/MVLU",
    "longvideobench": "longvideobench/LongVideoBench",
}
"""Name -> dataset of the Hugging Face hub that the kit's class downloads and unpacks."""
