"""The ten datasets of UniPruneBench (arXiv 2511.02650), MMBench in two languages, from VLMEvalKit's official files."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks._kit.tasks import TASKS, Task
from uniprune.benchmark import DataOptions, Dataset
from uniprune.errors import UserError
from uniprune.registry import register_benchmark


def _official(name: str, task: Task) -> Callable[[DataOptions], Dataset]:
    """The factory of one official dataset."""

    def load(options: DataOptions) -> Dataset:
        # Listing the benchmarks must not load pandas, torch and the kit.
        from benchmarks._kit.boot import boot
        from benchmarks._kit.dataset import KitDataset

        published = boot().dataset_class(task.module, task.cls)
        url, expected = published.DATASET_URL[task.kit_name], published.DATASET_MD5[task.kit_name]
        tsv = options.data_dir / f"{task.kit_name}.tsv"
        if not tsv.is_file():
            raise UserError(
                f"{name}: {tsv} does not exist; download {url} (md5 {expected}) and save it under exactly that name"
            )
        return KitDataset(name, task, tsv, options, expected_md5=expected)

    load.__doc__ = task.summary
    return load


for _name, _task in TASKS.items():
    register_benchmark(_name, suite="ten", ability=_task.ability, metric=_task.metric, judge=_task.judge)(
        _official(_name, _task)
    )
