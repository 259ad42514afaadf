"""One benchmark within a run: its rows evaluated, resumed, scored and recorded."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from uniprune.errors import UserError
from uniprune.evaluation.backend import Predictor
from uniprune.evaluation.dataset import Dataset, Request, Score, with_groups
from uniprune.evaluation.distributed import ProcessGroup
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.prompts import prompts_hash, worded
from uniprune.evaluation.score_checks import check_requests, check_score
from uniprune.evaluation.video_support import check_videos
from uniprune.evaluation.workers import explain_worker_failure
from uniprune.modeling.context import context_length
from uniprune.modeling.loading import LoadedModel
from uniprune.registry import BENCHMARKS
from uniprune.results.aggregate import batching, ledger, timing
from uniprune.results.predictions import Prediction, Predictions, part, stored_rows
from uniprune.results.records import DatasetRecord, Environment, RunRecord, ScoreRecord
from uniprune.results.remarks import CONTEXT, count_remarks, score_notes
from uniprune.results.statistics import resample
from uniprune.results.store import Store
from uniprune.results.table import RowsCell
from uniprune.utils.console import RunProgress


class DatasetRun:
    """One benchmark within a run.

    Args:
        record: the run's record so far.
        loaded: the model; its adapter words prompts under `prompts: family`, its entry has image settings.
        options: settings of the run.
        dataset: the benchmark.
        store: where predictions and record go.
        progress: display of the command.
        team: processes that share the rows.
        shares_features: whether image features are shared between methods.

    Attributes:
        requests: the rows.
    """

    def __init__(
        self,
        record: RunRecord,
        loaded: LoadedModel,
        options: RunOptions,
        dataset: Dataset,
        store: Store,
        progress: RunProgress,
        team: ProcessGroup,
        shares_features: bool = False,
    ) -> None:
        self.record, self.options = record, options
        self.dataset, self.store, self.progress, self.team = dataset, store, progress, team
        requests = [self._shortened(request) for request in dataset.requests(self.options.limit)]
        check_requests(dataset.name, requests)
        if self.options.prompts == "family":
            requests = [worded(request, loaded.adapter.prompt, loaded.adapter.system) for request in requests]
        check_videos(loaded, dataset.name, requests, shares_features)
        self.requests = requests
        self._context = context_length(loaded.adapter.decoder.config)
        self._beyond, self._before = False, 0
        self._whole = len(dataset) - len(dataset.faulty)
        self._blank = DatasetRecord(
            ability=dataset.ability,
            suite=BENCHMARKS.entry(dataset.name).metadata.get("suite", ""),
            data=dataset.fingerprint,
            prompts=prompts_hash(self.requests),
            images=loaded.entry.image_settings(dataset.name).plain(),
            rows=len(self.requests),
            whole=self._whole,
        )

    def complete(self, predictor: Predictor, environments: Sequence[Environment]) -> RunRecord:
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
                    self._note_unkept(stored)
                    self._write(stored.answers)
            with self.team.step():
                if not self.team.main:
                    stored = files.enter_context(Predictions(part(path, self.team.rank), self._waiting))
                    stored.know(path)
            try:
                with self.team.step(), explain_worker_failure():
                    self._evaluate(predictor, stored)
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

    def _evaluate(self, predictor: Predictor, stored: Predictions) -> None:
        """Evaluate this process's share of the rows without a stored prediction, batch by batch."""
        missing = [request for request in self.requests if request.index not in stored.answers]
        self._before = len(self.requests) - len(missing)
        self.progress.advance(len(self.requests) - len(missing))
        mine, left = self.team.share(missing), len(missing)
        for batch in predictor.predictions(mine, self.dataset.fingerprint, self.dataset.name):
            for prediction in batch:
                if prediction.error:
                    self.progress.say(f"  {self.dataset.name}: row {prediction.index} is left out: {prediction.error}")
                elif CONTEXT in prediction.remarks and not self._beyond:
                    self._beyond = True
                    self.progress.say(
                        f"  {self.dataset.name}: row {prediction.index} takes {prediction.positions} positions with "
                        f"its answer ({prediction.initial} visual tokens), but the model was made for {self._context}; "
                        "it is asked all the same, and further such rows are counted"
                    )
            stored.append(batch)
            done = min(len(batch) * self.team.size, left)  # the other processes are about as fast
            self.progress.advance(done)
            left -= done
        self.progress.advance(left)

    def _finish(self, stored: Predictions) -> None:
        """Collect the predictions of all processes, score them and print the score, if a row is left to score."""
        stored.take_in()
        if (kept := stored_rows(stored.path)) < len(stored.answers):
            raise UserError(
                f"{stored.path} holds {kept} of {len(stored.answers)} predictions: it was removed or replaced during "
                "the run; run the same command again, which runs the missing rows"
            )
        self._write(stored.answers)
        if self.record.datasets[self.dataset.name].unscorable:
            self.progress.say(f"  {self.dataset.name}: no score, all {len(self.requests)} rows are left out")
            return
        score = self._score(stored.answers)
        self._write(stored.answers, score)
        entry = self.record.datasets[self.dataset.name]
        out = len(entry.faulty)
        scored = RowsCell(score.rows, self._whole, limited=entry.rows < self._whole)
        self.progress.say(
            f"  {self.dataset.name}: {score.value:.1f} {score.metric} on {scored} rows"
            + f", {out} of {score.rows + out} rows left out ({self.dataset.name}.record.json names them)" * bool(out)
            + self._stored_before()
        )
        for note in score_notes(self.record, self.dataset.name):
            self.progress.say(f"    {note}")

    def _stored_before(self) -> str:
        """Return how many rows were stored before this command, as the end of a line; nothing if none were."""
        if self._before < len(self.requests):
            return f"; {self._before} of {len(self.requests)} answers were stored" * bool(self._before)
        return "; answers were stored"

    def _left_out(self, stored: Mapping[str, Prediction]) -> dict[str, str]:
        """Return the rows that could not be asked, then those scored together with them, with the reason."""
        found = (stored[request.index] for request in self.requests if request.index in stored)
        return with_groups({one.index: one.error for one in found if one.error is not None}, self.requests)

    def _score(self, stored: Mapping[str, Prediction]) -> ScoreRecord:
        """Score with the benchmark's own rules; nothing of an earlier scoring is reused but a judge model's replies.

        Raises:
            UserError: the benchmark scored other rows than those with a prediction.
        """
        out = self._left_out(stored)
        predictions = {r.index: stored[r.index].prediction for r in self.requests if r.index not in out}
        reasons = {"left_out": out} if out else {}
        workdir = self.store.folder(self.record.identity) / "judge" / self.dataset.name
        score = self.dataset.score(predictions, workdir, limit=self.options.limit, **reasons)
        check_score(score, self.dataset.name, predictions, out)
        with contextlib.suppress(OSError):  # not empty if it holds a judge's replies
            workdir.rmdir()
            workdir.parent.rmdir()
        return ScoreRecord(
            value=score.value,
            metric=score.metric,
            judge=score.judge,
            judge_note=score.judge_note,
            scorer=score.scorer,
            rows=score.rows,
            unparsed=score.unparsed,
            **uncertainty(score, self.dataset.name),
            details=dict(score.details),
        )

    def _write(self, stored: Mapping[str, Prediction], score: ScoreRecord | None = None) -> None:
        """Write the record of all predictions so far; without a new score, an old one of the same predictions stays."""
        evaluated = [stored[request.index] for request in self.requests if request.index in stored]
        predictions = [one for one in evaluated if one.error is None]
        out = self._left_out(stored)
        old = self.store.read_dataset(self.record.identity, self.dataset.name)
        entry = self._blank.model_copy(
            update={
                "answered": len(predictions),
                "refused": len(evaluated) - len(predictions),
                "left_out": len(out),
                "faulty": {**out, **self.dataset.faulty},
                "remarks": count_remarks(predictions),
                "size": self.store.size(self.record.identity, self.dataset.name),
                "batching": batching(predictions),
                "timing": timing(predictions),
                "ledger": ledger(predictions),
                "score": score,
                "days": _days(old, len(evaluated)),
            }
        )
        if score is None and old is not None:
            same = entry.model_copy(update={"score": old.score, "environments": old.environments})
            entry = old if same == old else entry
        self.record = self.store.update(self.record, self.dataset.name, entry, *self._environments)

    def _refuse_other_data(self) -> None:
        """Raise UserError if the stored predictions are those of other rows."""
        old = self.store.read_dataset(self.record.identity, self.dataset.name)
        for name, what in (("data", "the data file"), ("prompts", "the prompts"), ("images", "the image settings")):
            before, now = getattr(old, name, None), getattr(self._blank, name)
            if before not in (None, now):
                path = self.store.predictions(self.record.identity, self.dataset.name)
                raise UserError(
                    f"{self.dataset.name}: {what} changed since predictions were stored in {path} ({before} then, "
                    f"{now} now); choose another --output, or delete that file and {path.stem}.record.json to start "
                    "again"
                )

    def _note_unkept(self, stored: Predictions) -> None:
        """Print how many stored predictions lack the kept tokens that this run is to store."""
        found = (stored.answers.get(request.index) for request in self.requests)
        missing = sum(one is not None and one.error is None and one.selections is None for one in found)
        if self.options.keep_selections and missing:
            self.progress.say(
                f"  {self.dataset.name}: {missing} answers were stored without --keep-selections and stay so; choose "
                f"another --output, or delete {stored.path} to run them again"
            )

    def _shortened(self, request: Request) -> Request:
        """Return the request with the run's own `max_new_tokens`, if it has one."""
        length = self.options.max_new_tokens
        return request if length is None else dataclasses.replace(request, max_new_tokens=length)

    def _waiting(self, path: object) -> None:
        """Print that another process holds the file."""
        self.progress.say(f"  another process is writing {path}; waiting for it (Ctrl-C stops waiting)")


def _days(old: DatasetRecord | None, evaluated: int) -> list[str]:
    """Return the days of a benchmark's predictions: those stored, and today if there are more predictions now."""
    days, before = (old.days, old.answered + old.refused) if old else ([], 0)
    return list(dict.fromkeys([*days, datetime.now(UTC).date().isoformat()])) if evaluated > before else days


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
