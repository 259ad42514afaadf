"""Runs as Ray tasks, on this machine or on a cluster whose machines share the output folder.

A task executes some runs of one model, so that it loads one model once. Predictions and records are stored at once,
and the driver reads progress from the store. A task whose worker dies is restarted by Ray, and resumes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from uniprune.errors import Failure, UserError
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.plan import PlannedRun, RunOutcome, RunSettings
from uniprune.evaluation.sweep import Sweep
from uniprune.results.comparison import scored
from uniprune.results.predictions import stored_rows
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress
from uniprune.utils.setup import prepare

RETRIES = 3
"""Restarts of a task whose worker died."""


@dataclass(frozen=True)
class Resources:
    """Resources of tasks.

    Attributes:
        address: of a running cluster, "auto" to find it; "local" starts one on this machine for this command.
        cpus: CPUs per task.
        gpus: GPUs per task; None is one if the cluster has any.
        jobs: tasks at a time, None for as many as fit.
    """

    address: str = "local"
    cpus: float = 1
    gpus: float | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"jobs {self.jobs} must be at least 1")
        if self.cpus < 0 or (self.gpus or 0) < 0 or not (self.cpus or self.gpus):
            raise UserError(
                f"a task cannot take {self.cpus:g} CPUs and {self.gpus or 0:g} GPUs; give it some of either"
            )


class Cluster:
    """A Ray cluster, started or connected to inside the block (a context manager); a started one ends with it.

    Args:
        resources: of every task.
        settings: as for `Sweep`.
        plugins: value of `--plugin`.
        debug: value of `--debug`.
    """

    def __init__(
        self, resources: Resources, settings: RunSettings, plugins: Sequence[str] = (), debug: bool = False
    ) -> None:
        # Workers have working directories of their own.
        settings = dataclasses.replace(settings, output=settings.output.resolve(), data_dir=settings.data_dir.resolve())
        self.resources, self._store = resources, Store(settings.output)
        self._shared = (settings, [str(Path(plugin).resolve()) for plugin in plugins], debug)

    def __enter__(self) -> Self:
        """Start Ray or connect to it.

        Raises:
            UserError: Ray is not installed, not reachable, or too small for a task.
        """
        try:
            import ray
        except ImportError as error:
            raise UserError("--ray needs Ray: pip install -c constraints.txt -e '.[ray]'") from error
        self._ray: Any = ray
        resources = self.resources
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray's own switch: no usage statistics are sent
        cpus = ceil(resources.jobs * resources.cpus) if resources.address == "local" and resources.jobs else None
        options = {"num_cpus": cpus, "include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        try:
            ray.init(resources.address, **options)
        except ConnectionError as error:
            raise UserError(f"no Ray cluster at {resources.address!r}: {error}") from error
        try:
            gpus = resources.gpus if resources.gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
            self._per_task = {"num_cpus": resources.cpus, "num_gpus": gpus}
            self.slots()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect; tasks of this command end, and so does a cluster that was started for it."""
        self._ray.shutdown()

    def plan(self, cells: Sequence[RunSpec]) -> list[PlannedRun]:
        """Plan on a worker (`Sweep.plan`): its kind of device is part of a run's identity."""
        try:
            items: list[PlannedRun] = self._ray.get(self._start(plan, cells))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        return items

    def execute(self, items: Sequence[PlannedRun], progress: RunProgress) -> list[RunOutcome]:
        """Evaluate and score runs in tasks. A run whose worker dies after all `RETRIES` fails; the others continue."""
        outcomes = [RunOutcome(item, item.failure) for item in items if item.failure]
        waiting = groups([item for item in items if not item.failure], self.slots())
        running: dict[Any, list[PlannedRun]] = {}
        ended: list[PlannedRun] = []
        progress.begin("starting tasks")
        with contextlib.redirect_stdout(sys.stderr):  # Ray reports dead workers on stdout
            while waiting or running:
                while waiting and len(running) < self.slots():
                    group = waiting.pop(0)
                    running[self._start(execute, group)] = group
                ready, _ = self._ray.wait(list(running), timeout=1)
                for task in ready:
                    group = running.pop(task)
                    ended += group
                    found = self._outcomes(task, group)
                    for one in found:
                        ending = f"failed: {one.failure.message}" if one.failure else "scored"
                        progress.say(f"{one.item.label}: {ending}  ({self._store.root / str(one.item.identity)})")
                    outcomes += found
                progress.begin(f"{len(ended)} of {len(items)} runs, {len(running)} tasks")
                progress.reach(sum(self._stored(item) for group in (ended, *running.values()) for item in group))
        return outcomes

    def slots(self) -> int:
        """Return the number of tasks that run at a time.

        Raises:
            UserError: the cluster is too small for a task.
        """
        total, task = self._ray.cluster_resources(), self._per_task
        cpus, gpus = total.get("CPU", 0), total.get("GPU", 0)
        slots = min(there // n for there, n in ((cpus, task["num_cpus"]), (gpus, task["num_gpus"])) if n)
        if slots < 1:
            raise UserError(
                f"a task takes {task['num_cpus']:g} CPUs and {task['num_gpus']:g} GPUs, more than the {cpus:g} and "
                f"{gpus:g} of the Ray cluster; lower --task-cpus or --task-gpus"
            )
        return int(min(slots, self.resources.jobs or slots))

    def _start(self, function: Any, work: Sequence[Any]) -> Any:
        """Start a task with its resources."""
        return self._ray.remote(**self._per_task, max_retries=RETRIES)(function).remote(work, *self._shared)

    def _outcomes(self, task: Any, group: Sequence[PlannedRun]) -> list[RunOutcome]:
        """Return the outcomes of a finished task."""
        try:
            outcomes: list[RunOutcome] = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return [RunOutcome(item, None if self._scored(item) else Failure.of(error)) for item in group]
        return outcomes

    def _scored(self, item: PlannedRun) -> bool:
        """Check whether every benchmark of a run has a score."""
        try:
            record = self._store.read(str(item.identity), item.rows)
        except UserError:
            return False
        return record is not None and item.rows.keys() <= scored(record).keys()

    def _stored(self, item: PlannedRun) -> int:
        """Count the stored rows of a run."""
        folder = self._store.root / str(item.identity)
        return sum(min(stored_rows(folder / f"{name}.jsonl"), rows or 0) for name, rows in item.rows.items())


def groups(items: Sequence[PlannedRun], slots: int) -> list[list[PlannedRun]]:
    """Group runs to tasks: those of one model together, split only if there were fewer tasks than slots."""
    models: dict[tuple[str, str | None], list[PlannedRun]] = {}
    for item in items:
        models.setdefault((item.cell.model, item.cell.like), []).append(item)
    share = max(1, slots // max(1, len(models)))
    return [part for runs in models.values() for i in range(share) if (part := runs[i::share])]


def plan(cells: Sequence[RunSpec], settings: RunSettings, plugins: Sequence[str], debug: bool) -> list[PlannedRun]:
    """Call `Sweep.plan` in a task."""
    prepare(plugins, debug)
    return Sweep(settings).plan(cells)


def execute(
    items: Sequence[PlannedRun], settings: RunSettings, plugins: Sequence[str], debug: bool
) -> list[RunOutcome]:
    """Call `Sweep.execute` in a task."""
    prepare(plugins, debug)
    with RunProgress(0, Console(quiet=True)) as silent:
        return Sweep(settings).execute(items, silent)
