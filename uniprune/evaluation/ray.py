"""Runs as Ray tasks: on this machine, or on a cluster whose machines share the output folder.

A task asks some runs of one model, so that each task loads one model once. Answers and records go to the store as they
come, and the driver reads progress from there. A task whose worker dies is started again by Ray, and resumes.
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
from uniprune.evaluation.sweep import PlannedRun, RunOutcome, RunSettings, Sweep
from uniprune.results.comparison import scored
from uniprune.results.predictions import stored_rows
from uniprune.results.records import Store
from uniprune.utils.console import RunProgress
from uniprune.utils.setup import prepare

RETRIES = 3
"""How often a task whose worker died is started again."""


@dataclass(frozen=True)
class Resources:
    """What tasks take.

    Attributes:
        address: of a running cluster, "auto" to find it; "local" starts one on this machine for this command.
        cpus, gpus: that each task occupies; None is one GPU wherever the cluster has any.
        jobs: tasks at a time, None for as many as there is room for.
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
    """Ray, started or connected to inside the block (a context manager); what was started ends with it.

    Args:
        resources: of every task. machine: as for `Sweep`. plugins, debug: as on the command line.
    """

    def __init__(
        self, resources: Resources, machine: RunSettings, plugins: Sequence[str] = (), debug: bool = False
    ) -> None:
        # Workers have working directories of their own.
        machine = dataclasses.replace(machine, output=machine.output.resolve(), data_dir=machine.data_dir.resolve())
        self.resources, self._store = resources, Store(machine.output)
        self._shared = (machine, [str(Path(plugin).resolve()) for plugin in plugins], debug)

    def __enter__(self) -> Self:
        """Raises UserError where Ray is not installed, not reachable, or too small for a task."""
        try:
            import ray
        except ImportError as error:
            raise UserError("--ray needs Ray: pip install -c constraints.txt -e '.[ray]'") from error
        self._ray: Any = ray
        want = self.resources
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray's own switch: nothing is sent home
        cpus = ceil(want.jobs * want.cpus) if want.address == "local" and want.jobs else None
        try:
            ray.init(want.address, num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="error")
        except ConnectionError as error:
            raise UserError(f"no Ray cluster at {want.address!r}: {error}") from error
        try:
            gpus = want.gpus if want.gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
            self._takes = {"num_cpus": want.cpus, "num_gpus": gpus}
            self.slots()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; tasks of this command end, and a cluster that was started for it."""
        self._ray.shutdown()

    def plan(self, cells: Sequence[RunSpec]) -> list[PlannedRun]:
        """`Sweep.plan` where the runs will be asked: the kind of device there is part of what they are."""
        try:
            items: list[PlannedRun] = self._ray.get(self._start(plan, cells))
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        return items

    def execute(self, items: Sequence[PlannedRun], progress: RunProgress) -> list[RunOutcome]:
        """Ask and score runs in tasks. A run whose worker dies again and again fails; the others go on."""
        outcomes = [RunOutcome(item, item.failure) for item in items if item.failure]
        waiting = groups([item for item in items if not item.failure], self.slots())
        running: dict[Any, list[PlannedRun]] = {}
        ended: list[PlannedRun] = []
        with contextlib.redirect_stdout(sys.stderr):  # where Ray tells of workers that died
            while waiting or running:
                while waiting and len(running) < self.slots():
                    group = waiting.pop(0)
                    running[self._start(execute, group)] = group
                ready, _ = self._ray.wait(list(running), timeout=1)
                for task in ready:
                    group = running.pop(task)
                    ended += group
                    outcomes += self._outcomes(task, group)
                progress.reach(sum(self._stored(item) for group in (ended, *running.values()) for item in group))
        return outcomes

    def slots(self) -> int:
        """Tasks that run at a time. Raises UserError if there is no room for one."""
        has, takes = self._ray.cluster_resources(), self._takes
        cpus, gpus = has.get("CPU", 0), has.get("GPU", 0)
        room = min(there // n for there, n in ((cpus, takes["num_cpus"]), (gpus, takes["num_gpus"])) if n)
        if room < 1:
            raise UserError(
                f"a task takes {takes['num_cpus']:g} CPUs and {takes['num_gpus']:g} GPUs, more than the {cpus:g} and "
                f"{gpus:g} of the Ray cluster; lower --task-cpus or --task-gpus"
            )
        return int(min(room, self.resources.jobs or room))

    def _start(self, function: Any, work: Sequence[Any]) -> Any:
        """A task with the resources asked for."""
        return self._ray.remote(**self._takes, max_retries=RETRIES)(function).remote(work, *self._shared)

    def _outcomes(self, task: Any, group: Sequence[PlannedRun]) -> list[RunOutcome]:
        """How the runs of a task ended."""
        try:
            outcomes: list[RunOutcome] = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            records = {item.identity: self._store.read(str(item.identity)) for item in group}
            scores = {identity: scored(record) if record else {} for identity, record in records.items()}
            return [RunOutcome(i, None if set(i.rows) <= set(scores[i.identity]) else Failure.of(error)) for i in group]
        return outcomes

    def _stored(self, item: PlannedRun) -> int:
        """Rows of a run that are stored by now."""
        folder = self._store.root / str(item.identity)
        return sum(min(stored_rows(folder / f"{name}.jsonl"), rows or 0) for name, rows in item.rows.items())


def groups(items: Sequence[PlannedRun], slots: int) -> list[list[PlannedRun]]:
    """Runs as tasks: those of one model together, split only where tasks would be fewer than can run at a time."""
    models: dict[str, list[PlannedRun]] = {}
    for item in items:
        models.setdefault(item.cell.model, []).append(item)
    share = max(1, slots // max(1, len(models)))
    return [part for runs in models.values() for i in range(share) if (part := runs[i::share])]


def plan(cells: Sequence[RunSpec], machine: RunSettings, plugins: Sequence[str], debug: bool) -> list[PlannedRun]:
    """`Sweep.plan` as a task."""
    prepare(plugins, debug)
    return Sweep(machine).plan(cells)


def execute(items: Sequence[PlannedRun], machine: RunSettings, plugins: Sequence[str], debug: bool) -> list[RunOutcome]:
    """`Sweep.execute` as a task."""
    prepare(plugins, debug)
    with RunProgress(0, Console(quiet=True)) as silent:
        return Sweep(machine).execute(items, silent)
