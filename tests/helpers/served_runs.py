"""Runs with the usual backend and with servers, on the benchmark of `tests/plugins/small_benchmark.py`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from uniprune.evaluation.backend import IN_PROCESS, Backend
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.evaluation.serving.backend import Served
from uniprune.modeling.loading import LoadedModel, Placement, outline
from uniprune.results.predictions import Prediction, prediction_lines
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

CPU = Placement("float32", "sdpa", "cpu")


def evaluate(
    model: LoadedModel, method: MethodSpec, output: Path, dataset: Dataset, backend: Backend = IN_PROCESS
) -> tuple[RunRecord, dict[str, Prediction]]:
    run = Run(model, method, RunOptions(limit=6, batch_size=3), backend)
    record = run.evaluate([dataset], Store(output), RunProgress(6, Console(quiet=True)))
    return record, stored(output, record)


def stored(output: Path, record: RunRecord) -> dict[str, Prediction]:
    return {one.index: one for one in prediction_lines(output / record.identity / "small.jsonl").read()}


def served(model: LoadedModel, *addresses: str) -> tuple[LoadedModel, Served]:
    """Return the backend, and the model as it needs it: without weights."""
    backend = Served(addresses, timeout=20, retries=1)
    return backend.load(outline(model.entry, CPU)), backend
