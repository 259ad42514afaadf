"""The mini suite: ten small generated datasets in the formats of the ten real ones, scored by VLMEvalKit itself.

The tables are written on first use to `<data-dir>/mini-v<version>/`; questions and answers are the same on every
machine. The three datasets that require a judge use the rule judge unless another is named; scores name their judge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from uniprune.evaluation.dataset import DataOptions, Dataset
from uniprune.registry import register_benchmark

from .._kit.tasks import TASKS

TASK_OF = {
    "mme": "mme",
    "mmbench": "mmbench-en",
    "mathvista": "mathvista",
    "mathvision": "mathvision",
    "seedbench2-plus": "seedbench2-plus",
    "ocrbench": "ocrbench",
    "mia-bench": "mia-bench",
    "scienceqa": "scienceqa",
    "pope": "pope",
    "hallusionbench": "hallusionbench",
}
"""Table of the suite -> the real dataset with the same format, prompts and scoring."""
MAX_NEW_TOKENS = 16
"""Longest answer of a tiny model, in tokens."""


def _generated(table: str) -> Callable[[DataOptions], Dataset]:
    """Register the factory of one generated dataset."""
    task = TASKS[TASK_OF[table]]
    name = f"mini-{table}"

    def load(options: DataOptions) -> Dataset:
        # Listing the benchmarks must not load pandas, torch and the kit.
        from .._kit.dataset import KitDataset
        from .generate import VERSION, write

        file = options.data_dir / f"mini-v{VERSION}" / f"{name}.tsv"
        if not file.exists():
            write(table, file)
        return KitDataset(name, dataclasses.replace(task, max_new_tokens=MAX_NEW_TOKENS), file, _judged(options))

    def preflight(options: DataOptions) -> None:
        from .._kit.judges import check_judge

        check_judge(name, task.judging, _judged(options))

    load.__doc__ = f"Drawn scenes with the questions of {task.summary.split(':')[0]}."
    register = register_benchmark(
        name, suite="mini", ability=task.ability, metric=task.metric, judge=task.judge, preflight=preflight
    )
    return register(load)


def _judged(options: DataOptions) -> DataOptions:
    """Make the rule judge the default; datasets that need no judge ignore it."""
    return options if options.judge else dataclasses.replace(options, judge="rule")


for _table in TASK_OF:
    _generated(_table)
