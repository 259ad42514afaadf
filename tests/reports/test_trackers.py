"""Runs in experiment trackers: one each, with its numbers and conditions, however often it is exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.records import dataset, run, timed
from tests.results.test_store import store
from uniprune.cli.main import main
from uniprune.reports.trackers import conditions, numbers

RECORD = run("one", {"x": dataset([1.0, 0.0], timing=timed(0.5))}, limit=2)


def test_numbers_come_with_rows_batch_size_and_conditions() -> None:
    assert numbers(RECORD) == {
        "x/score": 50.0, "x/rows": 2.0, "x/batch size": 1.0, "x/visual tokens per layer": 16.0,
        "x/total ms": 500.0, "x/prefill ms": 500.0, "x/method ms": 500.0,
    }  # fmt: skip
    found = conditions(RECORD)
    assert (found["limit"], found["ratio"], found["method"], found["datasets"]) == (2, 0.5, "one", {"x": "d"})


def test_mlflow_has_each_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow's own switch, for a folder without a database
    store(tmp_path / "runs", RECORD)
    uri = str(tmp_path / "tracked")
    for _ in range(2):
        assert main(["export", "--output", str(tmp_path / "runs"), "--mlflow", "e", "--mlflow-uri", uri]) == 0
    client = mlflow.MlflowClient(tracking_uri=uri)
    [found] = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert found.data.metrics["x/score"] == 50.0
    assert found.data.params["limit"] == "2"
    assert found.info.status == "FINISHED"


@pytest.mark.end_to_end
def test_wandb_writes_files_without_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    store(tmp_path / "runs", RECORD)
    words = ["export", "--output", str(tmp_path / "runs"), "--wandb", "p", "--offline", "--wandb-dir", str(tmp_path)]
    assert main(words) == 0
    assert "1 runs in the wandb project p, offline" in capsys.readouterr().out
    [folder] = (tmp_path / "wandb").glob(f"offline-run-*-{RECORD.identity}")
    assert [*folder.glob("*.wandb")]


def test_an_export_to_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--output", str(tmp_path)]) == 2
    assert "give --wandb PROJECT or --mlflow EXPERIMENT" in capsys.readouterr().err
