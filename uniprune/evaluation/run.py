"""One run: predictions of a loaded model under one pruner on several benchmarks, resumed and scored."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Dataset, Request, Score
from uniprune.evaluation.distributed import ALONE, ProcessGroup
from uniprune.evaluation.environment import environment
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.processing import explain_worker_failure
from uniprune.evaluation.prompts import Policy, prompts_hash, worded
from uniprune.evaluation.runner import Runner
from uniprune.modeling.greedy import ignored_settings
from uniprune.modeling.loading import LoadedModel
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import with_average
from uniprune.registry import BENCHMARKS
from uniprune.results.aggregate import ledger, timing
from uniprune.results.predictions import Prediction, Predictions, part
from uniprune.results.records import DatasetRecord, Environment, ModelRecord, RunRecord, ScoreRecord, Setup, Store
from uniprune.results.statistics import resample
from uniprune.utils.console import RunProgress


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run apart from model and method.

    Attributes:
        protocol: "site" if the ratio holds at the pruning point, "average" if over all decoder layers.
        limit: rows per benchmark; None for all.
        batch_size: rows per batch (speed only).
        max_new_tokens: longest prediction of every row; None for the benchmark's own.
        workers: processes that decode images and process prompts ahead of the model (speed only).
        prompts: wording by "benchmark" or "family"; a family without words for a row leaves it to the benchmark.
    """

    protocol: Literal["site", "average"] = "site"
    limit: int | None = None
    batch_size: int = 8
    max_new_tokens: int | None = None
    workers: int = 0
    prompts: Policy = "benchmark"

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name.replace('_', '-')} {value} must be at least 1")
        if self.workers < 0:
            raise UserError(f"workers {self.workers} must be at least 0; 0 prepares rows in the main process")


class Run:
    """One model under one method, ready to be evaluated.

    Args:
        loaded: the model.
        method: the method, normalised.
        options: other settings.

    Raises:
        UserError: an unknown method or field, or a layer that the model does not have.
    """

    def __init__(self, loaded: LoadedModel, method: MethodSpec, options: RunOptions) -> None:
        self.loaded, self.method, self.options = loaded, method, options
        self.pruner = self._pruner()
        setup = Setup(
            weights=loaded.weights,
            processor=loaded.image_processor,
            method=method.record(self.pruner, loaded.num_layers),
            ratio=method.ratio,
            protocol=options.protocol,
            seed=method.seed,
            max_new_tokens=options.max_new_tokens,
            prompts=options.prompts,
            limit=options.limit,
            dtype=loaded.placement.dtype,
            attention=loaded.placement.attention,
            device=loaded.placement.kind,
        )
        self.record = RunRecord(
            identity=setup.identity(),
            model=ModelRecord(
                name=loaded.entry.name,
                source=loaded.entry.source,
                family=loaded.adapter.model.config.model_type,
                layers=loaded.num_layers,
                parameters=sum(weight.numel() for weight in loaded.model.parameters()),
                ignored=ignored_settings(loaded.model),
            ),
            setup=setup,
            random=tuple(part.random for part in method.classes.values()),
        )

    def evaluate(
        self,
        datasets: Sequence[Dataset],
        store: Store,
        progress: RunProgress,
        shared: FeatureCache | None = None,
        team: ProcessGroup = ALONE,
    ) -> RunRecord:
        """Evaluate and score every benchmark, storing each prediction at once; stored rows are not evaluated again.

        Image features and prompts in `shared` are used and added to; predictions then carry no times.

        Raises:
            UserError: a stored prediction belongs to other data, a file cannot be written, a judge fails, …
        """
        average = self.method.ratio if self.options.protocol == "average" else None
        speed = (self.options.batch_size, average, self.options.workers, shared)
        with ExitStack() as stack:
            with team.step():
                runner = stack.enter_context(Runner(self.loaded, self.pruner, *speed))
                each = [DatasetRun(self, dataset, store, progress, team) for dataset in datasets]
            environments = team.gather(environment(self.record.setup.device))
            for one in each:
                progress.begin(f"{self.method.label} · {one.dataset.name}")
                self.record = one.complete(runner, environments)
        return self.record

    def _pruner(self) -> Pruner:
        """Return the method at the ratio that the protocol requires."""
        pruner = self.method.pruner()
        if self.options.protocol == "average":
            pruner = with_average(pruner, self.method.ratio, self.loaded.num_layers)
        return pruner


class DatasetRun:
    """One benchmark within a run."""

    def __init__(self, run: Run, dataset: Dataset, store: Store, progress: RunProgress, team: ProcessGroup) -> None:
        self.record, self.options = run.record, run.options
        self.dataset, self.store, self.progress, self.team = dataset, store, progress, team
        requests = [self._shortened(request) for request in dataset.requests(self.options.limit)]
        if self.options.prompts == "family":
            requests = [worded(request, run.loaded.adapter.prompt) for request in requests]
        self._requests = requests
        self._blank = DatasetRecord(
            ability=dataset.ability,
            suite=BENCHMARKS.entry(dataset.name).metadata.get("suite", ""),
            data=dataset.fingerprint,
            prompts=prompts_hash(self._requests),
            rows=len(self._requests),
        )

    def complete(self, runner: Runner, environments: Sequence[Environment]) -> RunRecord:
        """Evaluate the rows without a stored prediction, then score. An interrupt leaves a record of what is stored.

        Of several processes, the first opens the file, scores and writes; each evaluates its share of the rows.
        """
        path = self.store.predictions(self.record.identity, self.dataset.name)
        self._environments = environments
        with ExitStack() as files:
            with self.team.step():
                if self.team.main:
                    stored = files.enter_context(Predictions(path, self._waiting))
                    stored.take_in()
                    self._refuse_other_data()
                    self._write(stored.answers)
            with self.team.step():
                if not self.team.main:
                    stored = files.enter_context(Predictions(part(path, self.team.rank), self._waiting))
                    stored.know(path)
            try:
                with self.team.step(), explain_worker_failure():
                    self._evaluate(runner, stored)
                    if not self.team.main:
                        files.close()
            except BaseException:
                if self.team.main:
                    # A full disk, or the signal of a dead worker, must not replace the first error.
                    with contextlib.suppress(UserError), explain_worker_failure():
                        self._write(stored.answers)
                raise
            with self.team.step():
                if self.team.main:
                    self._finish(stored)
        return self.record

    def _evaluate(self, runner: Runner, stored: Predictions) -> None:
        """Evaluate this process's share of the rows without a stored prediction, batch by batch."""
        missing = [request for request in self._requests if request.index not in stored.answers]
        self.progress.advance(len(self._requests) - len(missing))
        mine, left = self.team.share(missing), len(missing)
        for batch in runner.predictions(mine, self.dataset.fingerprint):
            for prediction in batch:
                if prediction.error:
                    self.progress.say(f"  {self.dataset.name}: row {prediction.index} is left out: {prediction.error}")
            stored.append(batch)
            done = min(len(batch) * self.team.size, left)  # the other processes are about as fast
            self.progress.advance(done)
            left -= done
        self.progress.advance(left)

    def _finish(self, stored: Predictions) -> None:
        """Collect the predictions of all processes, score them and print the score."""
        stored.take_in()
        self._write(stored.answers)
        score = self._score(stored.answers)
        self._write(stored.answers, score)
        faulty = len(self.record.datasets[self.dataset.name].faulty)
        self.progress.say(
            f"  {self.dataset.name}: {score.value:.1f} {score.metric} on {score.rows} rows"
            + f", {faulty} faulty rows left out" * bool(faulty)
        )

    def _score(self, stored: Mapping[str, Prediction]) -> ScoreRecord:
        """Score with the benchmark's own rules; nothing of an earlier scoring is reused but a judge model's replies."""
        indices = {request.index for request in self._requests}
        predictions = {i: one.prediction for i, one in stored.items() if i in indices and one.error is None}
        workdir = self.store.folder(self.record.identity) / "judge" / self.dataset.name
        score = self.dataset.score(predictions, workdir, limit=self.options.limit)
        with contextlib.suppress(OSError):  # not empty if it holds a judge's replies
            workdir.rmdir()
            workdir.parent.rmdir()
        return ScoreRecord(
            value=score.value,
            metric=score.metric,
            judge=score.judge,
            rows=score.rows,
            unparsed=score.unparsed,
            **uncertainty(score, self.dataset.name),
            details=dict(score.details),
        )

    def _write(self, stored: Mapping[str, Prediction], score: ScoreRecord | None = None) -> None:
        """Write the record of all predictions so far."""
        predictions = [stored[request.index] for request in self._requests if request.index in stored]
        faulty = dict(self.dataset.faulty) | {one.index: one.error for one in predictions if one.error}
        entry = self._blank.model_copy(
            update={
                "answered": len(predictions),
                "faulty": faulty,
                "timing": timing(predictions),
                "ledger": ledger(predictions),
                "score": score,
            }
        )
        self.record = self.store.update(self.record, self.dataset.name, entry, *self._environments)

    def _refuse_other_data(self) -> None:
        """Raise UserError if the stored predictions are those of other rows."""
        record = self.store.read(self.record.identity)
        old = record.datasets.get(self.dataset.name) if record else None
        for name, what in (("data", "the data file"), ("prompts", "the prompts")):
            before, now = getattr(old, name, None), getattr(self._blank, name)
            if before not in (None, now):
                path = self.store.predictions(self.record.identity, self.dataset.name)
                raise UserError(
                    f"{self.dataset.name}: {what} changed since predictions were stored in {path} ({before} then, "
                    f"{now} now); choose another --output, or delete that file and its record.json to start again"
                )

    def _shortened(self, request: Request) -> Request:
        """Return the request with the run's own `max_new_tokens`, if it has one."""
        length = self.options.max_new_tokens
        return request if length is None else dataclasses.replace(request, max_new_tokens=length)

    def _waiting(self, path: object) -> None:
        """Print that another process holds the file."""
        self.progress.say(f"  another process is writing {path}; waiting for it (Ctrl-C stops waiting)")


def uncertainty(score: Score, name: str) -> dict[str, Any]:
    """Return the fields of a `ScoreRecord` about items: their contributions and the interval.

    If the headline does not follow from the items, the interval is that of their mean credit (`interval_of`).
    """
    parts = {part: dict(added) for part, added in score.parts.items()}
    fields = {"per_item": dict(score.per_item), "clusters": dict(score.clusters), "parts": parts}
    if not score.per_item:
        return {**fields, "interval": None}
    [estimate] = resample([score], name)
    if abs(estimate.value - score.value) < 0.01:
        return {**fields, "interval": estimate.interval()}
    [estimate] = resample([dataclasses.replace(score, parts={})], name)
    return {**fields, "parts": {}, "interval": estimate.interval(), "interval_of": "mean credit"}
