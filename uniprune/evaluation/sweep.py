"""Many runs in one command: planned without weights, then evaluated model by model, for `run` and `sweep` alike.

A plan determines what each run is (its identity) and what is stored of it, from an outline of its model. A run that
cannot be planned or fails during evaluation carries its failure and does not stop the others.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Mapping, Sequence

import torch

from uniprune.errors import Failure, NoScoreError
from uniprune.evaluation.collection import DatasetCollection, dataset_names
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.distributed import ALONE, LostProcessError, ProcessGroup
from uniprune.evaluation.feature_cache import FeatureCache, sharing
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.plan import PlannedRun, RunOutcome, RunSettings
from uniprune.evaluation.run import Run, require_scores
from uniprune.evaluation.video_support import check_videos
from uniprune.modeling.catalog import ModelEntry, find_model
from uniprune.modeling.loading import LoadedModel, outline, place
from uniprune.results.comparison import same_machine
from uniprune.results.predictions import stored_rows
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress


class Sweep:
    """Planner and executor of runs.

    Args:
        settings: settings shared by all runs.
        team: processes that share the rows.

    Raises:
        UserError: a precision or device that this machine does not have.
    """

    def __init__(self, settings: RunSettings, team: ProcessGroup = ALONE) -> None:
        self.settings, self.team = settings, team
        self.store = Store(settings.output)
        self.placement = place(settings.dtype, settings.attention, team.device(settings.device))
        self._datasets = DatasetCollection(settings.data_dir, settings.judge, settings.judge_model)
        self._entries: dict[tuple[str, str | None], ModelEntry] = {}
        self._outlines: dict[tuple[str, str | None], LoadedModel | Exception] = {}

    def plan(self, cells: Iterable[RunSpec]) -> list[PlannedRun]:
        """Determine identity and progress of every run, in the given order; cells of one run are one item."""
        items: dict[object, PlannedRun] = {}
        for turn in (True, False):  # the first process may write benchmark files that the others then find
            with self.team.step():
                for cell in cells if self.team.main is turn else ():
                    item = self._planned(cell)
                    key = item.identity or len(items)
                    items[key] = items[key].joined(item) if key in items else item
        return [self._with_progress(item) for item in items.values()]

    def execute(self, items: Sequence[PlannedRun], progress: RunProgress) -> list[RunOutcome]:
        """Evaluate and score runs, grouped by model so that each is loaded once; a failure stops its run only.

        Raises:
            LostProcessError: another process of the team has ended.
        """
        outcomes: list[RunOutcome] = []
        models: dict[tuple[str, str | None], tuple[ModelEntry, list[PlannedRun]]] = {}
        for item in items:
            if failure := item.failure or item.stuck or self._unscorable(item):
                outcomes.append(RunOutcome(item, failure))
            elif item.entry is not None:
                models.setdefault((item.entry.name, item.entry.like), (item.entry, []))[1].append(item)
        for entry, group in models.values():
            outcomes += self._run_model(entry, group, progress)
            gc.collect()  # the next model needs the memory
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return outcomes

    def _unscorable(self, item: PlannedRun) -> Failure | None:
        """Check before the evaluation that the run's predictions can be scored."""
        try:
            with self.team.step():
                if self.team.main and not item.done:
                    self._datasets.check_scoring(list(item.rows))
        except LostProcessError:
            raise
        except Exception as error:
            return Failure.of(error)
        return None

    def _run_model(self, entry: ModelEntry, items: Sequence[PlannedRun], progress: RunProgress) -> list[RunOutcome]:
        """Load a model and execute its runs."""
        progress.begin(f"loading {entry.name}")
        try:
            with self.team.step():
                loaded = self.settings.backend.load(self._outline(entry))
                shared = sharing(loaded, self.settings.share_vision)
        except LostProcessError:
            raise
        except Exception as error:
            return [RunOutcome(item, Failure.of(error)) for item in items]
        progress.say(f"{entry.name} ({self.settings.backend.described(loaded)})")
        for remark in dict.fromkeys(remark for item in items for remark in item.remarks):
            progress.say(f"  {remark}")
        return [RunOutcome(item, self._run(item, loaded, shared, progress)) for item in items]

    def _run(
        self, item: PlannedRun, loaded: LoadedModel, shared: FeatureCache | None, progress: RunProgress
    ) -> Failure | None:
        """Execute a run; return its failure, if any."""
        progress.say(f"{item.label}  ({self.store.root / str(item.identity)})")
        try:
            run = Run(loaded, item.cell.choice, self._options(item.cell, loaded.entry), self.settings.backend)
            run.evaluate(self._datasets.all(list(item.rows)), self.store, progress, shared, self.team)
        except LostProcessError:
            raise
        except Exception as error:
            failure = Failure.of(error)
            progress.say(f"  failed: {failure.message}")
            return failure
        return None

    def _planned(self, cell: RunSpec) -> PlannedRun:
        """Plan one run; an exception becomes its failure."""
        item = PlannedRun(cell, f"{cell.model} {cell.choice.label}")
        try:
            entry = self._entry(cell.model, cell.like)
            names = dataset_names(cell.data, cell.suite or entry.suite)
            rows = {name: self._datasets.rows(name, cell.limit) for name in names}
            item = dataclasses.replace(item, label=f"{entry.name} {cell.choice.label}", entry=entry, rows=rows)
            outlined = self._outline(entry)
            for dataset in self._datasets.all(names):
                requests = dataset.requests(cell.limit)
                check_videos(outlined, dataset.name, requests, shares_features=bool(self.settings.share_vision))
            record = Run(outlined, cell.choice, self._options(cell, entry), self.settings.backend).record
            return dataclasses.replace(item, setup=record.setup, remarks=record.model.remarks)
        except Exception as error:
            return dataclasses.replace(item, failure=Failure.of(error))

    def _with_progress(self, item: PlannedRun) -> PlannedRun:
        """Return a planned run with `stored`, `done` and `stuck` as its folder has it."""
        identity = item.identity
        if identity is None:
            return item
        folder = self.store.root / identity
        try:
            stored = {name: stored_rows(folder / f"{name}.jsonl") for name in item.rows}
            item = dataclasses.replace(item, stored=stored)
            record = self.store.read(identity, item.rows)
            if record is None or not all(self._ended(record, name) for name in item.rows):
                return item
            require_scores(record, item.rows, self.store)
        except NoScoreError as error:
            return dataclasses.replace(item, stuck=Failure.of(error))
        except Exception as error:
            return dataclasses.replace(item, failure=Failure.of(error))
        return dataclasses.replace(item, done=True)

    def _ended(self, record: RunRecord, name: str) -> bool:
        """Check whether a benchmark is scored by present judge and scorer, or cannot be, on the present data file."""
        entry = record.datasets.get(name)
        if entry is None or entry.data != self._datasets.get(name).fingerprint:
            return False
        if entry.size != self.store.size(record.identity, name):  # rows were deleted, or files copied over others
            return False
        judge = self.settings.judge_model if self.settings.judge not in (None, "rule") else self.settings.judge
        if entry.score is None:
            return entry.unscorable
        scorer = getattr(self._datasets.get(name), "scorer", "")  # a benchmark need not have one
        return entry.score.scorer == scorer and (judge is None or entry.score.judge in ("exact", judge))

    def _options(self, cell: RunSpec, entry: ModelEntry) -> RunOptions:
        """Return the settings of a run apart from model and method."""
        return RunOptions(
            protocol=cell.protocol,
            question=cell.question,
            limit=cell.limit,
            batch_size=self.settings.batch_size,
            max_new_tokens=self.settings.max_new_tokens,
            workers=self.settings.workers,
            prompts=self.settings.prompts or entry.prompts,
            image_decoding=self.settings.image_decoding,
            sampling=self.settings.sampling,
            share_prefix=self.settings.share_prefix,
            keep_selections=self.settings.keep_selections,
        )

    def _entry(self, name: str, like: str | None) -> ModelEntry:
        """Return the catalogue entry of a model name under the image policy of the command, resolved once."""
        if (name, like) not in self._entries:
            self._entries[name, like] = find_model(name, like).with_images(self.settings.images)
        return self._entries[name, like]

    def _outline(self, entry: ModelEntry) -> LoadedModel:
        """Return a model without its weights, built once."""
        key = entry.name, entry.like
        if key not in self._outlines:
            try:
                self._outlines[key] = outline(entry, self.placement, self.settings.local)
            except Exception as error:
                self._outlines[key] = error
        found = self._outlines[key]
        if isinstance(found, Exception):
            raise found
        return found


def forecast(item: PlannedRun, records: Sequence[RunRecord]) -> float | None:
    """Return the seconds left of a planned run; None where its rows or all times of its model are unknown."""
    if item.setup is None:
        return None
    near = [record for record in records if same_machine(record.setup, item.setup)]
    return seconds_left(item.left, item.setup.method.name, item.setup.ratio, near)


def seconds_left(
    left: Mapping[str, int | None], method: str, ratio: float, records: Sequence[RunRecord]
) -> float | None:
    """Return the seconds that a method takes for rows of some benchmarks, without loading, preparing and scoring.

    Args:
        left: benchmark -> rows, None where unknown.
        method: name of the method.
        ratio: its keep ratio.
        records: stored runs of the model on the same kind of machine.

    Returns:
        None where the rows are unknown, or no stored run was timed.
    """
    if None in left.values():
        return None
    paces = {name: pace(name, method, ratio, records) for name, rows in left.items() if rows}
    known = [seconds * (left[name] or 0) for name, seconds in paces.items() if seconds is not None]
    return sum(known) if len(known) == len(paces) else None


def pace(benchmark: str, method: str, ratio: float, records: Sequence[RunRecord]) -> float | None:
    """Return seconds per row of the nearest timed run; None without any.

    The same benchmark is nearer than another, then the same method than another, then the nearer ratio.
    """
    timed = [
        (name != benchmark, record.setup.method.name != method, abs(record.setup.ratio - ratio), entry.timing)
        for record in records
        for name, entry in record.datasets.items()
        if entry.timing is not None
    ]
    if not timed:
        return None
    timing = min(timed, key=lambda one: one[:3])[3]
    return timing.total.total / timing.rows
