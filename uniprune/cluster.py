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

from uniprune import cli
from uniprune.errors import Failure, UserError
from uniprune.leaderboard import scored
from uniprune.predictions import stored_rows
from uniprune.progress import RunProgress
from uniprune.records import Store
from uniprune.sweep import Item, Machine, Outcome, Sweep
from uniprune.sweep_file import Cell

RETRIES = 3
"""How often a task whose worker died is started again."""


@dataclass(frozen=True)
class Resources:
    """What tasks take.

    Attributes:
        address: of a running cluster, "auto" to find it; "local" starts one on this machine for this command.
        cpus, gpus: that each task occupies. jobs: tasks at a time, None for as many as there is room for.
    """

    address: str = "local"
    cpus: float = 1
    gpus: float = 0
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"jobs {self.jobs} must be at least 1")
        if self.cpus < 0 or self.gpus < 0 or not (self.cpus or self.gpus):
            raise UserError(f"a task cannot take {self.cpus:g} CPUs and {self.gpus:g} GPUs; give it some of either")


class Cluster:
    """Ray, started or connected to inside the block (a context manager); what was started ends with it.

    Args:
        resources: of every task. machine: as for `Sweep`. plugins, debug: as on the command line.
    """

    def __init__(
        self, resources: Resources, machine: Machine, plugins: Sequence[str] = (), debug: bool = False
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
        want, own = self.resources, self.resources.address == "local"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray's own switch: nothing is sent home
        room = (
            {"num_cpus": ceil(want.jobs * want.cpus), "num_gpus": ceil(want.jobs * want.gpus)}
            if own and want.jobs
            else {}
        )
        try:
            ray.init(want.address, include_dashboard=False, log_to_driver=False, logging_level="error", **room)
        except ConnectionError as error:
            raise UserError(f"no Ray cluster at {want.address!r}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster; tasks of this command end, and a cluster that was started for it."""
        self._ray.shutdown()

    def plan(self, cells: Sequence[Cell]) -> list[Item]:
        """`Sweep.plan` where the runs will be asked: the kind of device there is part of what they are."""
        items: list[Item] = self._ray.get(self._start(plan, cells))
        return items

    def execute(self, items: Sequence[Item], progress: RunProgress) -> list[Outcome]:
        """Ask and score runs in tasks. A run whose worker dies again and again fails; the others go on."""
        outcomes = [Outcome(item, item.failure) for item in items if item.failure]
        waiting = groups([item for item in items if not item.failure], self.slots())
        running: dict[Any, list[Item]] = {}
        ended: list[Item] = []
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
        there, want = self._ray.cluster_resources(), self.resources
        cpus, gpus = there.get("CPU", 0), there.get("GPU", 0)
        room = [has // takes for has, takes in ((cpus, want.cpus), (gpus, want.gpus)) if takes]
        if min(room) < 1:
            raise UserError(
                f"a task takes {want.cpus:g} CPUs and {want.gpus:g} GPUs, more than the {cpus:g} and {gpus:g} of "
                "the Ray cluster; lower --task-cpus or --task-gpus"
            )
        return int(min(*room, want.jobs or min(room)))

    def _start(self, function: Any, work: Sequence[Any]) -> Any:
        """A task with the resources asked for."""
        options = {"num_cpus": self.resources.cpus, "num_gpus": self.resources.gpus, "max_retries": RETRIES}
        return self._ray.remote(**options)(function).remote(work, *self._shared)

    def _outcomes(self, task: Any, group: Sequence[Item]) -> list[Outcome]:
        """How the runs of a task ended."""
        try:
            outcomes: list[Outcome] = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            records = {item.identity: self._store.read(str(item.identity)) for item in group}
            scores = {identity: scored(record) if record else {} for identity, record in records.items()}
            return [Outcome(i, None if set(i.rows) <= set(scores[i.identity]) else Failure.of(error)) for i in group]
        return outcomes

    def _stored(self, item: Item) -> int:
        """Rows of a run that are stored by now."""
        folder = self._store.root / str(item.identity)
        return sum(min(stored_rows(folder / f"{name}.jsonl"), rows or 0) for name, rows in item.rows.items())


def groups(items: Sequence[Item], slots: int) -> list[list[Item]]:
    """Runs as tasks: those of one model together, split only where tasks would be fewer than can run at a time."""
    models: dict[str, list[Item]] = {}
    for item in items:
        models.setdefault(item.cell.model, []).append(item)
    share = max(1, slots // max(1, len(models)))
    return [part for runs in models.values() for i in range(share) if (part := runs[i::share])]


def plan(cells: Sequence[Cell], machine: Machine, plugins: Sequence[str], debug: bool) -> list[Item]:
    """`Sweep.plan` as a task."""
    cli.prepare(plugins, debug)
    return Sweep(machine).plan(cells)


def execute(items: Sequence[Item], machine: Machine, plugins: Sequence[str], debug: bool) -> list[Outcome]:
    """`Sweep.execute` as a task."""
    cli.prepare(plugins, debug)
    with RunProgress(0, Console(quiet=True)) as silent:
        return Sweep(machine).execute(items, silent)
