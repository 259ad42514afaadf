"""`python run.py sweep`: evaluate a grid of runs from a file, in this process or on Ray."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from uniprune.cli.run import machine_arguments, print_failures, rows_of, run_settings, show_results
from uniprune.errors import UserError
from uniprune.evaluation.config import RunSpec, read_sweep
from uniprune.reports.papers.mini import read_stand_ins
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.utils.console import say
from uniprune.utils.terminal import columns, show_table

if TYPE_CHECKING:  # importing it imports torch
    from uniprune.evaluation.plan import PlannedRun, RunOutcome
    from uniprune.utils.console import RunProgress

    Execute = Callable[[Sequence[PlannedRun], RunProgress], list[RunOutcome]]

HELP = "evaluate a grid of runs from a file"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `sweep`."""
    parser.set_defaults(resumes=True)
    parser.add_argument(
        "file", type=Path, metavar="FILE.yaml", help="the grid; uniprune/evaluation/config.py shows the form"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, evaluate nothing")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N rows of each benchmark, instead of the file's limit"
    )
    parser.add_argument("--mini", action="store_true", help="on embedded models and benchmarks (configs/mini.yaml)")
    ray = parser.add_argument_group("ray")
    ray.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="run as Ray tasks: on this machine, or on the cluster at ADDRESS (auto: a running one)",
    )
    ray.add_argument("--jobs", type=int, metavar="N", help="tasks at a time (default: as many as fit)")
    ray.add_argument("--task-cpus", type=float, default=1, metavar="N", help="CPUs of each task (default: 1)")
    ray.add_argument("--task-gpus", type=float, metavar="N", help="GPUs of each task (default: 1 if there are any)")
    machine_arguments(parser)


def act(options: argparse.Namespace) -> int:
    """Evaluate a grid of runs; runs that are done are skipped, a run that fails does not stop the others."""
    from uniprune.evaluation.distributed import ProcessGroup
    from uniprune.evaluation.ray import Cluster, Resources
    from uniprune.evaluation.sweep import Sweep

    cells = read_cells(options)
    if options.ray is None and options.jobs is not None:
        raise UserError("--jobs is the number of Ray tasks at a time; add --ray")
    shared = dataclasses.replace(run_settings(options), local=options.dry_run)
    with ProcessGroup.join() as team:
        if options.ray is None:
            sweep = Sweep(shared, team)
            with team.step():  # a launcher ends all processes once one has failed
                return execute_plan(sweep.plan(cells), sweep.execute, options, team.main)
        if team.size > 1:
            raise UserError("--ray under accelerate launch would start every task several times; use one of the two")
        resources = Resources(options.ray, options.task_cpus, options.task_gpus, options.jobs)
        with Cluster(resources, shared, options.plugin, options.debug) as cluster:
            return execute_plan(cluster.plan(cells), cluster.execute, options)


def read_cells(options: argparse.Namespace) -> list[RunSpec]:
    """Read the runs of the file, with `--mini` on embedded stand-ins, with `--limit` on fewer rows."""
    sweep = read_sweep(options.file)
    cells = (read_stand_ins().sweep(sweep) if options.mini else sweep).cells()
    return [cell if options.limit is None else dataclasses.replace(cell, limit=options.limit) for cell in cells]


def execute_plan(items: Sequence[PlannedRun], execute: Execute, options: argparse.Namespace, main: bool = True) -> int:
    """Execute the runs that are not done, or print the plan; of several processes only the `main` one prints."""
    from uniprune.utils.console import RunProgress

    store = Store(options.output)
    if options.dry_run:
        if main:
            doubts: list[str] = []
            show_plan(items, store.read_all(doubts.append))
            for doubt in doubts:
                say(doubt)
        return 0
    open_ = [item for item in items if not item.done]
    with RunProgress(rows_of(open_), Console(stderr=True, quiet=not main)) as progress:
        progress.say(f"{len(items)} runs, {len(items) - len(open_)} of them done before")
        outcomes = execute(open_, progress)
    failures = [(outcome.item, outcome.failure) for outcome in outcomes if outcome.failure]
    if main:
        show_results(store, items)
        print_failures(failures, len(items), options.debug)
    return 1 if failures else 0


def show_plan(items: Sequence[PlannedRun], records: Sequence[RunRecord]) -> None:
    """Print every run with its rows, those stored, and the time the others will take."""
    from uniprune.cli.planned_power import planned_power
    from uniprune.evaluation.sweep import forecast

    times = [forecast(item, records) for item in items]
    table = []
    for item, seconds in zip(items, times, strict=True):
        names = list(item.rows)
        time = "done" if item.done else "no score" if item.stuck else duration(seconds)
        benchmarks = ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"
        counts = [total(counts) for counts in (item.rows, item.stored, item.left)]
        table.append((item.label, *counts, time, settings(item.cell), benchmarks, item.identity or "–"))
    show_table(
        columns("run", right=("rows", "stored", "left", "time"), prose=("settings", "benchmarks", "identity")), table
    )
    left = sum(rows or 0 for item in items for rows in item.left.values())
    open_ = [seconds for item, seconds in zip(items, times, strict=True) if not item.done]
    known = [seconds for seconds in open_ if seconds is not None]
    say(f"{len(items)} runs, {sum(item.done for item in items)} done; {left} rows left")
    if known:
        say(f"evaluation takes about {duration(sum(known))}")
    if len(known) < len(open_):
        say(f"{len(open_) - len(known)} runs without an estimate: no run of their model is stored, or rows are unknown")
    for line in planned_power(items, records):
        say(line)
    for remark in dict.fromkeys(remark for item in items for remark in item.remarks):
        say(remark)
    failures = [(item, failure) for item in items if (failure := item.failure or item.stuck)]
    print_failures(failures, len(items), debug=False)


def settings(cell: RunSpec) -> str:
    """Return the other settings of a run, as on the command line."""
    words = [f"layer={cell.choice.layer}"] * (cell.choice.layer is not None)
    words += [f"{name}={text}" for name, text in cell.choice.settings.items()]
    words += [cell.protocol] * (cell.protocol != "site") + [f"limit={cell.limit}"] * (cell.limit is not None)
    words += [f"question={cell.question}"] * (cell.question != "seen")
    words += [f"like={cell.like}"] * (cell.like is not None)
    return " ".join(words)


def total(counts: Mapping[str, int | None]) -> str:
    """Return the sum of the counts as text; "–" if one is unknown."""
    return str(sum(n or 0 for n in counts.values())) if counts and None not in counts.values() else "–"


def duration(seconds: float | None) -> str:
    """Format as hours, minutes and seconds."""
    return "–" if seconds is None else str(timedelta(seconds=ceil(seconds)))
