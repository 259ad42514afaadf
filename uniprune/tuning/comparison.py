"""All runs of a tuning file, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import torch
from accelerate import PartialState
from rich.console import Console

from uniprune.errors import unknown
from uniprune.tuning.harness import TaskScores, task_scores
from uniprune.tuning.report import report_page
from uniprune.tuning.run import TuningRecord, TuningRun
from uniprune.tuning.settings import PairChoice, Settings, load_settings
from uniprune.tuning.summary import (
    FinishedRun,
    SummaryTable,
    accuracy_table,
    compare_method,
    count_problems,
    kept_table,
    quadrant_table,
    task_table,
    time_table,
)
from uniprune.tuning.tuning_data import TuningData, load_tuning_data
from uniprune.utils.console import RunProgress, write
from uniprune.utils.paths import ROOT


@dataclass(frozen=True)
class TuningComparison:
    """The finished runs of a tuning file.

    Attributes:
        name: of the file.
        runs: in the order of seeds, then pairs.
        data: inputs of the runs.
        base_tasks: scores of the base model on the file's tasks of lm-evaluation-harness.
    """

    name: str
    runs: Sequence[FinishedRun]
    data: TuningData
    base_tasks: TaskScores = field(default_factory=dict)

    @cached_property
    def tables(self) -> dict[str, SummaryTable]:
        """Return the tables by title."""
        tables = {"Accuracy": accuracy_table(self.runs)}
        if self.base_tasks:
            tables["Tasks"] = task_table(self.runs, self.base_tasks)
        tables["Time"] = time_table(self.runs)
        kind_of = {sample.index: sample.kind for sample in self.data.train if sample.kind}
        methods = [run for run in self.runs if run.record.choice.role == "method"]
        quadrants = {
            "Kept samples by quadrant": kept_table(self.runs),
            "Quadrants of the method": quadrant_table(methods, kind_of) if kind_of else None,
        }
        return tables | {title: table for title, table in quadrants.items() if table is not None}

    @cached_property
    def lines(self) -> list[str]:
        """Return the results that are sentences: the method against each pair, and problems of the runs."""
        return compare_method(self.runs) + count_problems(self.runs)

    def write(self, folder: Path) -> Path:
        """Write the tables as CSV and the report to a folder; return the path of the report.

        Raises:
            UserError: a file cannot be written.
        """
        for title, table in self.tables.items():
            write(folder / f"{title.split()[0].lower()}.csv", table.csv())
        report = folder / "report.html"
        write(report, report_page(self.name, self.runs, self.data, self.tables, self.lines))
        return report


def run_comparison(
    file: Path, folder: Path, seeds: Sequence[int] | None = None, only: Sequence[str] | None = None
) -> TuningComparison | None:
    """Perform the missing runs of a tuning file.

    Args:
        file: the tuning file.
        folder: folder of the file's runs.
        seeds: replace the file's.
        only: patterns of labels of the pairs to run; None for all.

    Returns:
        All runs, in the main process; None in the others.

    Raises:
        UserError: the file, the model or the data is wrong; everything finished before is kept.
    """
    settings = load_settings(file, ROOT)
    state = PartialState(cpu=not torch.cuda.is_available())
    console = Console(stderr=True, quiet=not state.is_main_process)
    data = load_tuning_data(settings, console)
    runs = [
        TuningRun(settings, choice, seed, data, folder, state.num_processes)
        for seed in (seeds or settings.seeds)  # seeds outermost: a change of the machine's load affects all pairs alike
        for choice in choose_pairs(settings, only)
    ]
    finished = perform_runs(runs, console, state)
    if not state.is_main_process:
        return None
    base = folder / f"base-{data.weights.replace('/', '--')}"
    base_tasks = task_scores(base, None, settings, data.tokenizer) if settings.tasks else {}
    return TuningComparison(file.stem, finished, data, base_tasks)


def choose_pairs(settings: Settings, only: Sequence[str] | None) -> list[PairChoice]:
    """Return the pairs whose label matches a pattern; all of them without patterns.

    Raises:
        UserError: a pattern matches no pair.
    """
    if only is None:
        return settings.pairs
    labels = [choice.label for choice in settings.pairs]
    for pattern in only:
        if not any(_matches(label, pattern) for label in labels):
            raise unknown("pair", pattern, labels)
    return [choice for choice in settings.pairs if any(_matches(choice.label, pattern) for pattern in only)]


def perform_runs(runs: Sequence[TuningRun], console: Console, state: PartialState) -> list[FinishedRun]:
    """Perform the runs that are not stored; return all of them, in order, in the main process."""
    finished = []
    with RunProgress(100 * len(runs), console) as progress:
        for number, run in enumerate(runs, start=1):
            label = f"{run.choice.label}, seed {run.seed}"
            progress.begin(label)
            state.wait_for_everyone()
            record = run.stored()
            if record is None:
                record = _perform(run, progress, 100 * number)
                total = record.after.get("")
                accuracy = f": {100 * total.right / total.items:.1f} % exact" if total else ""
                progress.say(f"{number}/{len(runs)} {label}{accuracy}  ({run.folder})")
            progress.reach(100 * number)
            if state.is_main_process:
                # Label and role are those of the current file; the stored numbers are the run's.
                record = record.model_copy(update={"label": run.choice.label, "choice": run.choice})
                finished.append(FinishedRun(record, run.step_log(), _tasks(run, progress)))
    return finished


def _perform(run: TuningRun, progress: RunProgress, end: int) -> TuningRecord:
    """Perform a run whose last percent is number `end` of the progress bar."""
    return run.perform(lambda step, steps: progress.reach(end - 100 + 100 * step // steps))


def _tasks(run: TuningRun, progress: RunProgress) -> TaskScores:
    """Return the scores of the tuned model on the file's tasks."""
    if not run.settings.tasks:
        return {}
    progress.begin(f"{run.choice.label}, seed {run.seed}: tasks")
    return task_scores(run.folder, run.folder / "model", run.settings, run.data.tokenizer)


def _matches(label: str, pattern: str) -> bool:
    """Check a label against a pattern; labels have brackets, which patterns read otherwise, so equality matches too."""
    return label == pattern or fnmatch(label, pattern)
