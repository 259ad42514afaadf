"""One run: a loaded model under one pruner, evaluated on several benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from uniprune.errors import NoScoreError
from uniprune.evaluation.backend import IN_PROCESS, Backend
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.dataset_run import DatasetRun
from uniprune.evaluation.distributed import ALONE, ProcessGroup
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.prompts import check_hidden
from uniprune.evaluation.resizing import check_no_videos, check_resizable
from uniprune.evaluation.shared_prefixes import check_shareable
from uniprune.modeling.catalog import unused_settings
from uniprune.modeling.greedy import ignored_settings
from uniprune.modeling.loading import LoadedModel
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import with_average
from uniprune.results.records import ModelRecord, RunRecord, Setup
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress


class Run:
    """One model under one method, ready to be evaluated.

    Args:
        loaded: the model.
        method: the method, normalised.
        options: other settings.
        backend: what answers the rows.

    Raises:
        UserError: an unknown method or field, a layer that the model does not have, or a backend without this method.
    """

    def __init__(
        self, loaded: LoadedModel, method: MethodSpec, options: RunOptions, backend: Backend = IN_PROCESS
    ) -> None:
        self.loaded, self.method, self.options, self.backend = loaded, method, options, backend
        self.pruner = self._pruner()
        described = method.record(self.pruner, loaded.adapter.attends)
        setup = Setup(
            weights=loaded.weights,
            processor=loaded.image_processor,
            images=loaded.entry.images,
            method=described,
            ratio=method.ratio,
            protocol=options.protocol,
            seed=method.seed,
            max_new_tokens=options.max_new_tokens,
            prompts=options.prompts,
            question=options.question,
            image_decoding=options.image_decoding,
            frames=options.sampling.frames,
            fps=options.sampling.fps,
            limit=options.limit,
            **backend.setup(loaded, described),
        )
        self.record = RunRecord(
            identity=setup.identity(),
            model=ModelRecord(
                name=loaded.entry.name,
                source=loaded.entry.source,
                like=loaded.entry.like,
                unused=unused_settings(loaded.entry, loaded.adapter.model.config.model_type, options.prompts),
                untried=loaded.adapter.untried(),
                family=loaded.adapter.model.config.model_type,
                layers=loaded.num_layers,
                parameters=sum(weight.numel() for weight in loaded.model.parameters()),
                ignored=ignored_settings(loaded.model),
            ),
            setup=setup,
            known_as=method.known_as,
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
            NoScoreError: all rows of a benchmark are left out; the other benchmarks are scored.
        """
        average = self.method.ratio if self.options.protocol == "average" else None
        options, setup = self.options, self.record.setup
        with ExitStack() as stack:
            with team.step():
                predictor = stack.enter_context(
                    self.backend.predictor(self.loaded, self.pruner, options, average, shared, setup)
                )
                each = [
                    DatasetRun(self.record, self.loaded, options, dataset, store, progress, team, shared is not None)
                    for dataset in datasets
                ]
                for one in each:
                    check_no_videos(self.pruner, one.dataset.name, one.requests)
            environments = team.gather(self.backend.environment(setup))
            for one in each:
                progress.begin(f"{self.method.label} · {one.dataset.name}")
                entries = {**self.record.datasets, **one.complete(predictor, environments).datasets}
                self.record = self.record.model_copy(update={"datasets": entries})
        with team.step():
            if team.main:
                require_scores(self.record, (dataset.name for dataset in datasets), store)
        return self.record

    def _pruner(self) -> Pruner:
        """Return the method at the ratio that the protocol requires.

        Raises:
            UserError: the question is hidden, or rows share prefixes, and the method looks at it; or it changes images
                of which the model's sizes are not described; or selections are to be kept, and where tokens are in a
                picture is not described.
        """
        pruner = self.method.pruner()
        if self.options.protocol == "average":
            pruner = with_average(pruner, self.method.ratio, self.loaded.num_layers, self.loaded.adapter.attends)
        if self.options.keep_selections:
            self.loaded.adapter.image_areas(self.loaded.processor, (64, 64), 1)
        check_resizable(pruner, self.loaded.adapter.input_forms, self.loaded.processor)
        if self.options.question == "hidden":
            check_hidden(pruner, self.loaded.num_layers)
        if self.options.share_prefix:
            check_shareable(pruner, self.loaded.num_layers)
        return pruner


def require_scores(record: RunRecord, names: Iterable[str], store: Store) -> None:
    """Check that no benchmark of a run lacks a score because all its rows are left out.

    Raises:
        NoScoreError: some do.
    """
    lost = [name for name in names if name in record.datasets and record.datasets[name].unscorable]
    if lost:
        raise NoScoreError("\n".join(_no_score(record, name, store) for name in lost))


def _no_score(record: RunRecord, name: str, store: Store) -> str:
    """Return why a benchmark has no score, and the remedy."""
    entry = record.datasets[name]
    if not entry.rows:
        return f"{name}: it has no row, so there is no score"
    row, reason = next(iter(entry.faulty.items()))
    return (
        f"{name}: all {entry.rows} rows are left out, so there is no score (row {row}: {reason}); "
        f"{name}.record.json names every reason. Once the cause is mended, delete "
        f"{store.predictions(record.identity, name)} to run them again"
    )
