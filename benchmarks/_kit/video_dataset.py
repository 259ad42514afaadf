"""VLMEvalKit's video datasets: its prompts and scores over a table in memory and videos in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uniprune.evaluation.dataset import DataOptions
from uniprune.evaluation.video_files import opened
from uniprune.modeling.messages import Part, RawQuestion
from uniprune.utils.hashing import stable_hash

from .boot import session
from .dataset import KitDataset
from .evaluators import literals_only
from .table import KitTable
from .task import Task
from .video_kit import VideoKit, boot_videos, repaired_videos

FRAMES_FPS = 3.0
"""Frames per second of a video that is a folder of frames, as in the kit's MVBench."""


class VideoDataset(KitDataset):
    """A benchmark of videos, with the kit's prompts for models that take videos; it neither samples nor stores frames.

    The fingerprint covers the table, and names and sizes of its videos: reading them all would take minutes.

    Args:
        name: as for `KitDataset`, as all arguments.
        task: its `video` names a row's video.
        tsv: the table; paths of videos start at its folder.
        options: data folder.
        expected_md5: md5 of the official table; None accepts any.
    """

    def __init__(
        self, name: str, task: Task, tsv: Path, options: DataOptions, *, expected_md5: str | None = None
    ) -> None:
        self._folder = tsv.parent
        super().__init__(name, task, tsv, options, expected_md5=expected_md5)
        self.fingerprint = stable_hash([self.fingerprint, self._sizes])

    def _boot(self) -> VideoKit:
        """The kit with its video datasets."""
        return boot_videos()

    def _repaired(self, rows: int) -> contextlib.AbstractContextManager[None]:
        """Of the video datasets, too."""
        return repaired_videos(self._kit, rows)

    def _opened(self, table: KitTable) -> Any:
        """Over the table, with the folder of the data file as the kit's."""
        self._sizes = {path: _size(Path(path)) for [path] in table.visuals}
        with session() as temporary:
            return _in_memory(self._kit, self.task, table, self._folder, temporary / "table.pkl")

    def _rows(self, positions: Any) -> Any:
        """Numbered from 0: the kit writes the score of the row called i into line i."""
        table = self._data.data.iloc[positions].reset_index(drop=True)
        return table.assign(index=range(len(table)))

    def _message(self, position: int) -> Any:
        """As for a model that takes videos, without empty texts; of a copy of the row: LongVideoBench changes it."""
        with literals_only():
            items = self._data.build_prompt(self._data.data.iloc[position].copy(), True)
        return [item for item in items if item["value"]]

    def _shown(self, value: str) -> Part:
        """The video; a run chooses its frames."""
        return Part(video=opened(Path(value), FRAMES_FPS))

    def _raw_question(self, row: Any, items: Sequence[Mapping[str, Any]]) -> RawQuestion | None:
        """None: no supported family has words of its own for the kit's video questions."""
        return None


def _size(path: Path) -> list[int]:
    """Return the bytes of a file, or of every file in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file.stat().st_size for file in files]


def _in_memory(kit: VideoKit, task: Task, table: KitTable, folder: Path, file: Path) -> Any:
    """Return the kit's dataset object over a table in memory, by the methods that its subclasses may override."""
    base = kit.dataset_class(task.module, task.cls)
    table.frame.to_pickle(file)

    class InMemory(base):  # type: ignore[misc, valid-type]
        def prepare_dataset(self, *args: Any, **kwargs: Any) -> dict[str, str]:
            """Return table and folder; the kit's own downloads hundreds of gigabytes."""
            return {"root": str(folder), "data_file": str(file)}

        def save_video_frames(self, *args: Any, **kwargs: Any) -> tuple[list[str], list[int], dict[str, float]]:
            """Return no frames: LongVideoBench decodes the video even for a model that takes videos."""
            return [], [], {"fps": 1.0, "n_frames": 0.0}

    return InMemory(task.kit_name)
