"""Many runs as one piece of work: planned without weights, then asked model by model. `run` and `sweep` are both this.

Planning finds out what each run is (its identity) and what is stored of it already, from an outline of its model. A run
that cannot be is told apart from the others, which go on; the same holds for one that fails while it is asked.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from uniprune.errors import Failure
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.dataset import DatasetCollection, dataset_names
from uniprune.evaluation.distributed import ALONE, LostProcessError, ProcessGroup
from uniprune.evaluation.feature_cache import FeatureCache, sharing
from uniprune.evaluation.prompts import Policy
from uniprune.evaluation.run import Run, RunOptions
from uniprune.modeling.catalog import ModelEntry, find_model
from uniprune.modeling.loading import LoadedModel, outline, place, with_weights
from uniprune.results.comparison import same_machine
from uniprune.results.predictions import stored_rows
from uniprune.results.records import RunRecord, Setup, Store
from uniprune.utils.console import RunProgress


@dataclass(frozen=True)
class RunSettings:
    """Where and how runs are asked: everything that is not the question.

    Attributes:
        output: folder of the runs. data_dir: folder of the benchmarks' files. device, dtype, attention: as `place`.
        batch_size: rows answered together. max_new_tokens: longest answer, None for each benchmark's own.
        workers: processes that prepare rows ahead. share_vision: GB of image features kept for all runs of a model.
        prompts: who words them, None for what the catalogue says of the model. judge, judge_model: as `DataOptions`.
        local: leave checkpoints alone that would have to be downloaded.
    """

    output: Path
    data_dir: Path
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    batch_size: int = 8
    max_new_tokens: int | None = None
    workers: int = 0
    share_vision: float = 0
    prompts: Policy | None = None
    judge: str | None = None
    judge_model: str | None = None
    local: bool = False


@dataclass(frozen=True)
class PlannedRun:
    """One planned run.

    Attributes:
        cell: what was asked for. label: model, method and ratio.
        setup: what determines its answers; None if that could not be found out.
        rows: benchmark -> rows to ask in all, None where unknown. stored: benchmark -> rows answered already.
        done: whether every benchmark is answered and scored. failure: why it cannot be run, None if it can.
    """

    cell: RunSpec
    label: str
    setup: Setup | None = None
    rows: dict[str, int | None] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    done: bool = False
    failure: Failure | None = None

    @property
    def left(self) -> dict[str, int | None]:
        """Benchmark -> rows still to ask, None where unknown."""
        return {name: None if n is None else max(n - self.stored.get(name, 0), 0) for name, n in self.rows.items()}

    @property
    def identity(self) -> str | None:
        """The run's folder; None if it could not be found out."""
        return self.setup.identity() if self.setup else None


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: `failure` is None if all its benchmarks were asked and scored."""

    item: PlannedRun
    failure: Failure | None = None


class Sweep:
    """Plans and asks runs.

    Args:
        machine: where and how. team: the processes that share the rows.

    Raises:
        UserError: a precision or device this machine does not have.
    """

    def __init__(self, machine: RunSettings, team: ProcessGroup = ALONE) -> None:
        self.machine, self.team = machine, team
        self.store = Store(machine.output)
        self.placement = place(machine.dtype, machine.attention, team.device(machine.device))
        self._library = DatasetCollection(machine.data_dir, machine.judge, machine.judge_model)
        self._outlines: dict[str, LoadedModel | Exception] = {}

    def plan(self, cells: Iterable[RunSpec]) -> list[PlannedRun]:
        """What every run is and what is left of it, in the given order; cells that are the same run are one item."""
        items: dict[object, PlannedRun] = {}
        for turn in (True, False):  # the first process may write benchmark files that the others then find
            with self.team.step():
                for cell in cells if self.team.main is turn else ():
                    item = self._item(seeded(cell))
                    items.setdefault(item.identity or len(items), item)
        return list(items.values())

    def execute(self, items: Sequence[PlannedRun], progress: RunProgress) -> list[RunOutcome]:
        """Ask and score runs, those of one model together so that it is loaded once. A failure stops its run only.

        Raises:
            LostProcessError: another process of the team has ended.
        """
        outcomes: list[RunOutcome] = []
        models: dict[str, list[PlannedRun]] = {}
        for item in items:
            if failure := item.failure or self._unscorable(item):
                outcomes.append(RunOutcome(item, failure))
            else:
                models.setdefault(find_model(item.cell.model).name, []).append(item)
        for group in models.values():
            outcomes += self._model(group, progress)
            gc.collect()  # the next model needs the room
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return outcomes

    def _unscorable(self, item: PlannedRun) -> Failure | None:
        """What would keep the run's answers from being scored, found out before the model answers anything."""
        try:
            with self.team.step():
                if self.team.main and not item.done:
                    self._library.check_scoring(list(item.rows))
        except LostProcessError:
            raise
        except Exception as error:
            return Failure.of(error)
        return None

    def _model(self, items: Sequence[PlannedRun], progress: RunProgress) -> list[RunOutcome]:
        """The runs of one model."""
        entry = find_model(items[0].cell.model)
        progress.begin(f"loading {entry.name}")
        try:
            with self.team.step():
                loaded = with_weights(self._outline(entry))
                shared = sharing(loaded, self.machine.share_vision)
        except LostProcessError:
            raise
        except Exception as error:
            return [RunOutcome(item, Failure.of(error)) for item in items]
        progress.say(f"{entry.name} ({self.placement})")
        return [RunOutcome(item, self._ask(item, loaded, shared, progress)) for item in items]

    def _ask(
        self, item: PlannedRun, loaded: LoadedModel, shared: FeatureCache | None, progress: RunProgress
    ) -> Failure | None:
        """One run; what went wrong, if something did."""
        progress.say(f"{item.label}  ({self.store.root / str(item.identity)})")
        try:
            run = Run(loaded, item.cell.choice, self._options(item.cell, loaded.entry))
            run.evaluate(self._library.all(list(item.rows)), self.store, progress, shared, self.team)
        except LostProcessError:
            raise
        except Exception as error:
            failure = Failure.of(error)
            progress.say(f"  failed: {failure.message}")
            return failure
        return None

    def _item(self, cell: RunSpec) -> PlannedRun:
        """A cell as a planned run."""
        item = PlannedRun(cell, f"{cell.model} {cell.choice.name} {cell.choice.ratio:g}")
        try:
            entry = find_model(cell.model)
            names = dataset_names(cell.data, cell.suite or entry.suite)
            item = dataclasses.replace(item, rows={name: self._library.rows(name, cell.limit) for name in names})
            self._library.all(names)
            run = Run(self._outline(entry), cell.choice, self._options(cell, entry))
            setup, folder = run.record.setup, self.store.root / run.record.identity
            return dataclasses.replace(
                item,
                label=f"{entry.name} {run.label}",
                setup=setup,
                stored={name: stored_rows(folder / f"{name}.jsonl") for name in names},
                done=self._done(run.record.identity, names),
            )
        except Exception as error:
            return dataclasses.replace(item, failure=Failure.of(error))

    def _done(self, identity: str, names: Sequence[str]) -> bool:
        """Whether nothing is left: every benchmark scored, of the data that lies here, by the judge asked for."""
        record = self.store.read(identity)
        judge = self.machine.judge_model if self.machine.judge not in (None, "rule") else self.machine.judge
        for name in names:
            entry = record.datasets.get(name) if record else None
            if entry is None or entry.score is None or entry.data != self._library.get(name).fingerprint:
                return False
            if judge is not None and entry.score.judge not in ("exact", judge):
                return False
        return True

    def _options(self, cell: RunSpec, entry: ModelEntry) -> RunOptions:
        """Settings of a run beside model and method."""
        machine = self.machine
        return RunOptions(
            protocol=cell.protocol,
            limit=cell.limit,
            batch_size=machine.batch_size,
            max_new_tokens=machine.max_new_tokens,
            workers=machine.workers,
            prompts=machine.prompts or entry.prompts,
        )

    def _outline(self, entry: ModelEntry) -> LoadedModel:
        """A model without its weights, looked for once."""
        if entry.name not in self._outlines:
            try:
                self._outlines[entry.name] = outline(entry, self.placement, self.machine.local)
            except Exception as error:
                self._outlines[entry.name] = error
        found = self._outlines[entry.name]
        if isinstance(found, Exception):
            raise found
        return found


def seeded(cell: RunSpec) -> RunSpec:
    """The cell with its seed if that means something: else the same answers would have one identity per seed."""
    if cell.choice.random():
        return cell
    return dataclasses.replace(cell, choice=dataclasses.replace(cell.choice, seed=0))


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
