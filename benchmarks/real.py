"""The official datasets of the papers' tables, through VLMEvalKit.

The ten of UniPruneBench (arXiv 2511.02650), variants of them, and further ones of ZSPAPrune and FoPru.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from uniprune.errors import UserError
from uniprune.evaluation.collection import download_command
from uniprune.evaluation.dataset import DataOptions, Dataset
from uniprune.registry import register_benchmark

from ._kit.official import OfficialFile
from ._kit.task import Task
from ._kit.tasks import TASKS


def _factory(source: OfficialFile) -> Callable[[DataOptions], Dataset]:
    """Make the factory of one official dataset."""

    def load(options: DataOptions) -> Dataset:
        # Listing the benchmarks must not load pandas, torch and the kit.
        from ._kit.dataset import KitDataset

        path = source.path(options.data_dir)
        if not path.is_file():
            command = download_command([source.name], options.data_dir)
            raise UserError(f"{source.name}: {path} does not exist; run: {command}")
        _, expected = source.published()
        return KitDataset(source.name, source.task, path, options, expected_md5=expected)

    load.__doc__ = source.task.summary
    return load


def _preflight(name: str, options: DataOptions) -> None:
    """Raise UserError if the dataset needs a judge and it is unreachable."""
    from ._kit.judges import check_judge

    check_judge(name, TASKS[name].judging, options)


def _register(name: str, task: Task) -> None:
    source = OfficialFile(name, task)
    register_benchmark(
        name,
        suite=task.suite,
        ability=task.ability,
        metric=task.metric,
        judge=task.judge,
        rows=task.rows,
        rows_known=task.rows_known,
        source=source,
        preflight=partial(_preflight, name),
    )(_factory(source))


for _name, _task in TASKS.items():
    _register(_name, _task)
