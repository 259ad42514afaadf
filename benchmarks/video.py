"""Video benchmarks, through VLMEvalKit: prompts of its wrappers for models that take videos, its own scores."""

from __future__ import annotations

from collections.abc import Callable

from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions, Dataset
from uniprune.registry import register_benchmark

from ._kit.task import Task
from ._kit.video_official import VideoFiles
from ._kit.video_tasks import VIDEO_TASKS


def _factory(source: VideoFiles) -> Callable[[DataOptions], Dataset]:
    """Make the factory of one official dataset."""

    def load(options: DataOptions) -> Dataset:
        # Listing the benchmarks must not load pandas, torch and the kit.
        from ._kit.video_dataset import VideoDataset

        path = source.path(options.data_dir)
        if not path.is_file():
            raise UserError(f"{source.name}: {path} does not exist; {source.remedy(options.data_dir)}")
        return VideoDataset(source.name, source.task, path, options, expected_md5=source.published())

    load.__doc__ = source.task.summary
    return load


def _register(name: str, task: Task) -> None:
    source = VideoFiles(name, task)
    register_benchmark(
        name,
        suite=task.suite,
        ability=task.ability,
        metric=task.metric,
        judge=task.judge,
        rows=task.rows,
        rows_known=task.rows_known,
        source=source,
    )(_factory(source))


for _name, _task in VIDEO_TASKS.items():
    _register(_name, _task)
