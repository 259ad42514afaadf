"""Stored runs as runs of an experiment tracker, one each, found again by its identity: a repetition adds none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniprune.errors import UserError
from uniprune.results.records import RunRecord

IDENTITY = "uniprune.identity"
"""Tag of an MLflow run with the run's identity."""


def numbers(record: RunRecord) -> dict[str, float]:
    """Return the measured numbers of a run: `benchmark/quantity` -> value, with the rows and batch size behind them."""
    found: dict[str, float] = {}
    for name, entry in record.datasets.items():
        if entry.score is not None:
            low, high = entry.score.interval or (None, None)
            score = {"score": entry.score.value, "score low": low, "score high": high, "rows": entry.score.rows}
            found |= {f"{name}/{key}": float(value) for key, value in score.items() if value is not None}
        if entry.timing is not None:
            spans = {f"{span} ms": getattr(entry.timing, span).median for span in ("total", "prefill", "method")}
            found |= {f"{name}/{key}": value for key, value in spans.items()}
            found[f"{name}/batch size"] = entry.timing.batch_size
        if entry.ledger is not None:
            found[f"{name}/visual tokens per layer"] = entry.ledger.average
    return found


def conditions(record: RunRecord) -> dict[str, Any]:
    """Return the settings that a run's numbers hold under."""
    setup = record.setup.model_dump(mode="json", exclude={"method", "processor"})
    devices = {one.device for entry in record.datasets.values() for one in entry.environments}
    method = record.setup.method
    judges = {entry.score.judge for entry in record.datasets.values() if entry.score}
    return {
        "identity": record.identity,
        "model": record.model.name,
        "source": record.model.source,
        "method": method.spelled_out,
        "method code": method.code,
        "machine": ", ".join(sorted(devices)),
        "judge": ", ".join(sorted(judges)),
        "datasets": {n: one.data for n, one in record.datasets.items()},
        **setup,
    }


def label(record: RunRecord) -> str:
    """Return model, method and ratio."""
    return f"{record.model.name} {record.setup.method.name} {record.setup.ratio:g}"


def export_wandb(records: Sequence[RunRecord], project: str, offline: bool, folder: Path) -> None:
    """Store runs in a Weights & Biases project.

    Args:
        records: the runs.
        project: name of the project.
        offline: write them to the folder only; `wandb sync` uploads them.
        folder: folder of the files that wandb keeps.

    Raises:
        UserError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError("--wandb needs wandb: pip install 'uniprune[wandb]'") from error
    for record in records:
        run = wandb.init(
            project=project,
            id=record.identity,
            name=label(record),
            config=conditions(record),
            mode="offline" if offline else "online",
            dir=str(folder),
            resume="allow",
            reinit="finish_previous",
            settings=wandb.Settings(console="off", silent=True),
        )
        run.summary.update(numbers(record))
        run.finish()


def export_mlflow(records: Sequence[RunRecord], experiment: str, uri: str | None) -> None:
    """Store runs in an MLflow experiment.

    Args:
        records: the runs.
        experiment: name of the experiment, created if missing.
        uri: tracking server or folder; None for MLflow's own default.

    Raises:
        UserError: MLflow is not installed.
    """
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise UserError("--mlflow needs MLflow: pip install 'uniprune[mlflow]'") from error
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    for record in records:
        known = client.search_runs([number], f"tags.`{IDENTITY}` = '{record.identity}'")
        run = known[0] if known else client.create_run(number, run_name=label(record), tags={IDENTITY: record.identity})
        for name, value in {} if known else conditions(record).items():
            client.log_param(run.info.run_id, name.replace("'", ""), str(value)[:500])
        for name, value in numbers(record).items():
            client.log_metric(run.info.run_id, name, value)
        client.set_terminated(run.info.run_id)
