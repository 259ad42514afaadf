"""All runs of a tuning file, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from accelerate import PartialState
from rich.console import Console
from rich.table import Table as Printed

from uniprune.errors import unknown
from uniprune.tuning.harness import TaskScores, task_scores
from uniprune.tuning.journal import StepLog
from uniprune.tuning.material import TuningData, material
from uniprune.tuning.report import page
from uniprune.tuning.run import TuningRun
from uniprune.tuning.settings import PairChoice, Settings, load_settings
from uniprune.tuning.summary import (
    Finished,
    SummaryTable,
    accuracy_table,
    counts,
    quadrant_table,
    task_table,
    time_table,
    verdict,
)
from uniprune.utils.console import RunProgress, say, stdout, write
from uniprune.utils.paths import ROOT


def compare(file: Path, root: Path, seeds: Sequence[int] | None = None, only: Sequence[str] | None = None) -> None:
    """Perform what is missing of a file's runs, then print the tables and write the report.

    Raises:
        UserError: the file, the model or the data is wrong; everything finished before is kept.
    """
    settings = load_settings(file, ROOT)
    state = PartialState(cpu=not _gpu())
    console = Console(stderr=True, quiet=not state.is_main_process)
    folder = root / file.stem
    shared = material(settings, console)
    runs = [
        TuningRun(settings, choice, seed, shared, folder, state.num_processes)
        for seed in (seeds or settings.seeds)  # seeds outermost: whatever else the machine does meets all pairs alike
        for choice in chosen(settings, only)
    ]
    done = perform(runs, console, state)
    if state.is_main_process:
        publish(done, settings, shared, folder, file.stem)


def chosen(settings: Settings, only: Sequence[str] | None) -> list[PairChoice]:
    """The pairs whose label matches a pattern; all without patterns. Raises UserError when nothing matches one."""
    if only is None:
        return settings.pairs
    labels = [choice.label for choice in settings.pairs]
    for pattern in only:
        if not any(fnmatch(label, pattern) or label == pattern for label in labels):
            raise unknown("pair", pattern, labels)
    return [c for c in settings.pairs if any(fnmatch(c.label, p) or c.label == p for p in only)]


def perform(runs: Sequence[TuningRun], console: Console, state: PartialState) -> list[Finished]:
    """Finished runs, in order; those stored are not performed again."""
    done = []
    with RunProgress(100 * len(runs), console) as progress:
        for number, run in enumerate(runs, start=1):
            label = f"{run.choice.label}, seed {run.seed}"
            progress.begin(label)
            state.wait_for_everyone()
            record = run.stored()
            if record is None:
                shown = 0

                def advance(step: int, steps: int) -> None:
                    nonlocal shown
                    percent = 100 * step // steps
                    progress.advance(percent - shown)
                    shown = percent

                record = run.perform(advance)
                progress.advance(100 - shown)
                result = record.after.get("")
                accuracy = f": {100 * result.right / result.items:.1f} % exact" if result else ""
                progress.say(f"{number}/{len(runs)} {label}{accuracy}  ({run.folder})")
            else:
                progress.advance(100)
            # Labels and roles are the file's of today; the stored numbers are the run's.
            record = record.model_copy(update={"label": run.choice.label, "choice": run.choice})
            if state.is_main_process:
                journal = StepLog(run.folder / "steps.jsonl")
                done.append(Finished(record, journal, tasks_of(run, progress)))
    return done


def tasks_of(run: TuningRun, progress: RunProgress) -> TaskScores:
    """Scores of the tuned model on the harness's tasks."""
    if not run.settings.tasks:
        return {}
    progress.begin(f"{run.choice.label}, seed {run.seed}: tasks")
    return task_scores(run.folder, run.folder / "model", run.settings, run.material.tokenizer)


def publish(done: Sequence[Finished], settings: Settings, shared: TuningData, folder: Path, name: str) -> None:
    """Print the tables and write them, with the pictures, to the folder."""
    kind_of = {sample.index: sample.kind for sample in shared.train if sample.kind}
    methods = [run for run in done if run.record.choice.role == "method"]
    accuracy, times = accuracy_table(done), time_table(done)
    quadrants = quadrant_table(methods, kind_of) if kind_of else None
    tasks = None
    if settings.tasks:
        tasks = task_table(
            done, task_scores(folder / f"base-{shared.weights.replace('/', '--')}", None, settings, shared.tokenizer)
        )
    lines = verdict(done) + counts(done)
    tables = [("Accuracy", accuracy), ("Tasks", tasks), ("Time", times), ("Quadrants of the method", quadrants)]
    for title, table in tables:
        if table is not None:
            say(f"\n{title}")
            show(table)
            write(folder / f"{title.split()[0].lower()}.csv", table.csv())
    for line in lines:
        say(line)
    report = folder / "report.html"
    write(report, page(name, done, shared, tables, lines))
    say(f"\nreport: {report}")


def show(table: SummaryTable) -> None:
    """Print a table."""
    printed = Printed(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(table.columns):
        printed.add_column(column, justify="left" if number == 0 else "right")
    for row in table.rows:
        # Labels hold brackets, which rich would take for markup.
        printed.add_row(*(cell.replace("[", "\\[") for cell in row))
    stdout().print(printed)


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()
