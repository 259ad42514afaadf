"""Small tables in the formats of VLMEvalKit's video datasets, with their videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.kit_tables import Row, write
from tests.helpers.videos import write_video
from uniprune.benchmarks._kit.video_dataset import VideoDataset
from uniprune.benchmarks._kit.video_tasks import VIDEO_TASKS
from uniprune.evaluation.dataset import DataOptions


@dataclass(frozen=True)
class VideoExample:
    """Rows with predictions, the credit of each, how many cannot be read, and the text around the first video."""

    rows: list[Row]
    answers: dict[str, tuple[str, float]]
    unparsed: int
    wording: tuple[str | int, ...]


WATCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question.\n"
)
_DOMAIN = {"domain": "Knowledge", "sub_category": "Geography", "task_type": "OCR Problems", "subtitle_path": "none.srt"}
_MVBENCH = {"prefix": "video/clevrer/", "task_type": "Moving Count"}

EXAMPLES: dict[str, VideoExample] = {
    "video-mme": VideoExample(
        rows=[
            {"index": 0, "video": "a", "duration": "short", **_DOMAIN, "question": "What is it?", "answer": "B",
             "candidates": "['A. x.', 'B. y.', 'C. z.', 'D. w.']"},
            {"index": 1, "video": "a", "duration": "long", **_DOMAIN, "question": "Which?", "answer": "A",
             "candidates": "['A. x.', 'B. y.', 'C. z.', 'D. w.']"},
            {"index": 2, "video": "b", "duration": "medium", **_DOMAIN, "question": "Why?", "answer": "D",
             "candidates": "['A. x.', 'B. y.', 'C. z.', 'D. w.']"},
            {"index": 3, "video": "b", "duration": "medium", **_DOMAIN, "question": "How?", "answer": "C",
             "candidates": "['A. x.', 'B. y.', 'C. z.', 'D. w.']"},
        ],
        answers={"0": ("The answer is B.", 1), "1": ("B", 0), "2": ("no idea", 0), "3": ("C. z.", 1)},
        unparsed=1,
        wording=(
            0,
            "\nThese are the frames of a video. Select the best answer to the following multiple-choice question "
            "based on the video. Respond with only the letter (A, B, C, or D) of the correct option.\n",
            "Question: What is it?\nA. x.\nB. y.\nC. z.\nD. w.\nAnswer: ",
        ),
    ),
    "mvbench": VideoExample(
        rows=[
            {"index": 10, **_MVBENCH, "video": "a.mp4", "question": "How many?", "answer": "3",
             "candidates": "['2', '3', '4']"},
            {"index": 11, **_MVBENCH, "video": "a.mp4", "question": "Who?", "answer": "The man.",
             "candidates": "['The man.', 'The dog.']"},
            {"index": 12, **_MVBENCH, "video": "b.mp4", "question": "Who?", "answer": "The dog.",
             "candidates": "['The man.', 'The dog.']"},
            {"index": 13, **_MVBENCH, "video": "b.mp4", "question": "Who?", "answer": "The dog.",
             "candidates": "['The man.', 'The dog.']"},
            {"index": 14, **_MVBENCH, "video": "b.mp4", "question": "Who?", "answer": "The dog.",
             "candidates": "['The man.', 'The dog.']"},
        ],
        answers={"10": ("(B) 3", 1), "11": ("B", 0), "12": ("", 0), "13": ("(", 0), "14": ("nobody", 0)},
        unparsed=3,
        wording=(WATCH, 0, "Question: How many?\nOptions:\n(A) 2\n(B) 3\n(C) 4", "\nOnly give the best option.",
                 "Best option:("),
    ),
    "mlvu": VideoExample(
        rows=[
            {"index": 0, "prefix": "./MLVU/video/4_count", "task_type": "count", "duration": 480.0, "video": "a.mp4",
             "question": "How many?", "answer": "2", "candidates": "['1', '2', '3', '4']"},
            {"index": 1, "prefix": "./MLVU/video/5_order", "task_type": "order", "duration": 99.5, "video": "b.mp4",
             "question": "In which order?", "answer": "x->y", "candidates": "['y->x', 'x->y']"},
            {"index": 2, "prefix": "./MLVU/video/5_order", "task_type": "order", "duration": 99.5, "video": "b.mp4",
             "question": "In which order?", "answer": "x->y", "candidates": "['y->x', 'x->y']"},
        ],
        answers={"0": ("(B) 2", 1), "1": ("A)", 0), "2": ("", 0)},
        unparsed=1,
        wording=(
            "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
            "option that accurately addresses the question.",
            0,
            "Question: How many?\nOptions:\n(A) 1\n(B) 2\n(C) 3\n(D) 4",
            "\nOnly give the best option.",
        ),
    ),
    "longvideobench": VideoExample(
        rows=[
            {"index": 0, "video": "a", "video_path": "./videos/a.mp4", "question": "What?", "correct_choice": 4,
             "candidates": "['p', 'q', 'r', 's', 't']", "question_category": "S2E", "duration_group": 15},
            {"index": 1, "video": "b", "video_path": "./videos/b.mp4", "question": "What?", "correct_choice": 0,
             "candidates": "['p', 'q']", "question_category": "TAA", "duration_group": 3600},
            {"index": 2, "video": "b", "video_path": "./videos/b.mp4", "question": "Who?", "correct_choice": 1,
             "candidates": "['p', 'q']", "question_category": "TAA", "duration_group": 3600},
        ],
        answers={"0": ("E", 1), "1": ("Option: B", 0), "2": ("?", 0)},
        unparsed=1,
        wording=(0, "What?\nA. p\nB. q\nC. r\nD. s\nE. t\nAnswer with the option's letter from the given choices "
                        "directly."),
    ),
}  # fmt: skip


def table(name: str, folder: Path, rows: list[Row] | None = None) -> Path:
    """Write the table of a dataset, and a video of ten frames per second for every row that names one."""
    task, rows = VIDEO_TASKS[name], EXAMPLES[name].rows if rows is None else rows
    assert task.video is not None
    for row in rows:
        path = folder / task.video(row)
        if not path.exists():
            write_video(path, 20)
    return write(folder / f"{task.kit_name}.tsv", rows)


def opened(name: str, folder: Path, rows: list[Row] | None = None, **options: Any) -> VideoDataset:
    """Open a dataset over a written table."""
    return VideoDataset(name, VIDEO_TASKS[name], table(name, folder, rows), DataOptions(folder), **options)
