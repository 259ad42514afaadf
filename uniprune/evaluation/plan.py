"""Data of a plan: settings of a command, its runs with their identities, and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from uniprune.errors import Failure, UserError
from uniprune.evaluation.backend import IN_PROCESS, Backend
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.frame_sampling import USUAL, FrameSampling
from uniprune.evaluation.image_decoding import ImageDecoding
from uniprune.evaluation.prompts import Policy
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.image_settings import ImagePolicy
from uniprune.results.records import Setup


@dataclass(frozen=True)
class RunSettings:
    """Settings that all runs of a command share: folders, machine and judge.

    Attributes:
        output: folder of the runs.
        data_dir: folder of the benchmarks' files.
        device: as for `place`.
        dtype: as for `place`.
        attention: as for `place`.
        batch_size: rows per batch.
        max_new_tokens: longest prediction, None for each benchmark's own.
        workers: processes that prepare rows ahead of the model.
        share_vision: GB of image features kept for all runs of a model.
        share_prefix: as in `RunOptions`.
        keep_selections: as in `RunOptions`.
        prompts: wording policy, None for the catalogue's default of the model.
        image_decoding: as in `RunOptions`.
        sampling: as in `RunOptions`.
        images: policy of image processing, None for the catalogue's default of the model.
        judge: as in `DataOptions`.
        judge_model: as in `DataOptions`.
        local: use only checkpoints that need no download.
        backend: what answers the rows.
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
    share_prefix: bool = False
    keep_selections: bool = False
    prompts: Policy | None = None
    image_decoding: ImageDecoding = "kit"
    sampling: FrameSampling = USUAL
    images: ImagePolicy | None = None
    judge: str | None = None
    judge_model: str | None = None
    local: bool = False
    backend: Backend = IN_PROCESS

    def __post_init__(self) -> None:
        if self.share_vision and self.share_prefix:
            raise UserError(
                "--share-vision and --share-prefix exclude each other: both prefill from what another row computed; "
                "give one of them"
            )


@dataclass(frozen=True)
class PlannedRun:
    """A run with its identity and progress, before it is executed.

    Attributes:
        cell: the run as specified.
        label: model, method and ratio.
        entry: the model's catalogue entry; None if there is none.
        setup: settings that determine its predictions; None if they could not be determined.
        remarks: those on its model and settings.
        rows: benchmark -> rows in all, None where unknown.
        stored: benchmark -> rows with a stored prediction.
        done: whether every benchmark is complete and scored.
        stuck: why it is not done although no row is left to run, None otherwise: all rows of a benchmark are left out.
        failure: why it cannot be run, None if it can.
    """

    cell: RunSpec
    label: str
    entry: ModelEntry | None = None
    setup: Setup | None = None
    remarks: tuple[str, ...] = ()
    rows: dict[str, int | None] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    done: bool = False
    stuck: Failure | None = None
    failure: Failure | None = None

    def joined(self, other: PlannedRun) -> PlannedRun:
        """Return this run with the benchmarks of another plan of the same run, too."""
        return replace(self, rows={**self.rows, **other.rows}, failure=self.failure or other.failure)

    @property
    def left(self) -> dict[str, int | None]:
        """Benchmark -> rows left to evaluate, None where unknown."""
        return {name: None if n is None else max(n - self.stored.get(name, 0), 0) for name, n in self.rows.items()}

    @property
    def identity(self) -> str | None:
        """Name of the run's folder; None if it could not be determined."""
        return self.setup.identity() if self.setup else None


@dataclass(frozen=True)
class RunOutcome:
    """Result of executing a run: `failure` is None if all its benchmarks were evaluated and scored."""

    item: PlannedRun
    failure: Failure | None = None
