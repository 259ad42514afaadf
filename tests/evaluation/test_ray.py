"""A grid as Ray tasks on this machine, with a worker killed in the middle."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cli.test_cli import PLUGINS, predictions, start, wait_for_rows
from tests.evaluation.test_sweep import contents, sweep_file, words
from uniprune.evaluation.config import Block
from uniprune.evaluation.plan import PlannedRun
from uniprune.evaluation.ray import groups

pytestmark = pytest.mark.end_to_end


@pytest.mark.slow
@pytest.mark.timeout(900)  # Ray starts slowly on a busy machine
def test_a_killed_worker_costs_no_row(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    models = [str(checkpoint("llava")), str(checkpoint("internvl"))]
    method = {"name": "gated", "set": {"gate": str(gate)}}
    file = sweep_file(tmp_path, {"model": models, "method": ["none", method], "ratio": 0.25, "data": "small"})
    plugin = ["--plugin", str(PLUGINS / "gated.py")]
    driver = start(words(file, tmp_path / "out", "--ray", "--jobs", "2", "--batch-size", "1", *plugin))
    try:
        wait_for_rows(tmp_path / "out", 2 * 12 + 2 * 3)
        started = psutil.Process(driver.pid).children(recursive=True)
        workers = [process for process in started if process.name().startswith("ray::execute")]
        assert len(workers) == 2
        before = contents(tmp_path / "out")
        assert sorted(len(data.splitlines()) for data in before.values()) == [3, 3, 12, 12]
        workers[0].kill()
        gate.touch()
        shown, printed = driver.communicate(timeout=250)
        assert driver.returncode == 0, printed
    finally:
        if driver.poll() is None:  # whatever failed must not leave a cluster behind
            driver.send_signal(signal.SIGINT)
            driver.communicate(timeout=60)
    after = contents(tmp_path / "out")
    assert len(after) == 4
    assert all(after[path].startswith(data[: data.rfind(b"\n") + 1]) for path, data in before.items())
    for data in after.values():
        assert sorted(int(json.loads(line)["index"]) for line in data.splitlines()) == list(range(12))
    assert len(predictions(tmp_path / "out")) == 48
    assert shown.startswith("model ")
    assert "A worker died" in printed
    deadline = time.monotonic() + 20
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in started):
        assert time.monotonic() < deadline, "Ray left processes behind"
        time.sleep(0.1)


def test_runs_of_one_model_stay_together_while_there_are_enough_tasks() -> None:
    def items(model: str, number: int) -> list[PlannedRun]:
        cells = Block(model=model, method="none", seed=list(range(number)), data="small").cells()
        return [PlannedRun(cell, model) for cell in cells]

    both = items("a", 4) + items("b", 2)
    assert [[item.label for item in group] for group in groups(both, 2)] == [["a"] * 4, ["b"] * 2]
    assert sorted(len(group) for group in groups(both, 4)) == [1, 1, 2, 2]
    assert sorted(len(group) for group in groups(items("a", 3), 8)) == [1, 1, 1]
    assert groups([], 2) == []
