"""Several processes on one run: shares, part files, steps, and a process that dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.cli.test_cli import PLUGINS, ROOT, predictions, wait_for_rows, words
from tests.helpers.programs import Program, places
from uniprune.cli.main import main
from uniprune.errors import Failure, UserError
from uniprune.evaluation.distributed import ALONE, ProcessGroup
from uniprune.results.predictions import Prediction, Predictions, part, stored_rows

pytestmark = pytest.mark.end_to_end

Checkpoint = Callable[[str], Path]


def launch(arguments: list[str]) -> subprocess.Popen[str]:
    """`accelerate launch` with two processes; the console script imports more than it needs."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = [*launcher, "--main_process_port", "0", str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(output: Path) -> dict[str, str]:
    stored = predictions(output)
    found = {row["index"]: row["prediction"] for row in stored}
    assert len(found) == len(stored), "a row is stored twice"
    return found


def score(output: Path) -> Any:
    """The score with what is said of its rows."""
    entry = json.loads(next(output.glob("*/small.record.json")).read_text())
    return entry["score"], entry["remarks"], entry["batching"]


@pytest.mark.slow
def test_two_processes_share_the_rows_and_go_on_where_one_stopped(checkpoint: Checkpoint, tmp_path: Path) -> None:
    arguments = ["--method", "random-pre", "--ratio", "0.25", "--batch-size", "2"]
    assert main(words(checkpoint("llava"), tmp_path / "one", *arguments)) == 0
    assert main(words(checkpoint("llava"), tmp_path / "two", *arguments)) == 0
    path = next((tmp_path / "two").glob("*/small.jsonl"))
    kept = b"".join(path.read_bytes().splitlines(keepends=True)[:3])
    path.write_bytes(kept)

    pair = launch(words(checkpoint("llava"), tmp_path / "two", *arguments))
    shown, printed = pair.communicate(timeout=200)
    assert pair.returncode == 0, printed
    assert path.read_bytes().startswith(kept)
    order = [row["index"] for row in predictions(tmp_path / "two")]
    assert order == ["0", "1", "2", "3", "5", "7", "9", "11", "4", "6", "8", "10"], "every other row was the other's"
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    assert score(tmp_path / "two") == score(tmp_path / "one")
    assert shown.count("leaderboard of all runs") == 1
    assert printed.count("small: ") == 1
    assert not list(path.parent.glob("*.part*"))


@pytest.mark.slow
def test_a_process_that_dies_loses_no_stored_row(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Without a launcher, which would end the other process too: it finishes its share and exits with an error."""
    plugin = str(PLUGINS / "gated.py")
    gate = tmp_path / "gate"
    arguments = ["--plugin", plugin, "--method", "gated", "--set", f"gate={gate}", "--ratio", "0.25"]
    arguments = words(checkpoint("llava"), tmp_path, *arguments, "--batch-size", "1")
    first, second = pair = [Program(arguments, environment=place) for place in places(2)]
    wait_for_rows(tmp_path, 1, "small.part1.jsonl")  # of its six rows the second one is held back
    wait_for_rows(tmp_path, 6)
    second.kill()
    gate.touch()
    printed = [process.communicate(timeout=200)[1] for process in pair]
    assert second.returncode == -signal.SIGKILL
    assert first.returncode == 1
    assert "another process of this launch has ended" in printed[0]
    path = next(tmp_path.glob("*/small.jsonl"))
    before, lost = path.read_bytes(), part(path, 1).read_bytes()
    assert (len(before.splitlines()), len(lost.splitlines())) == (6, 1)
    assert score(tmp_path)[0] is None

    assert main(arguments) == 0
    after = path.read_bytes()
    assert after.startswith(before + lost), "what the process that died had stored is kept as it was"
    assert set(rows(tmp_path)) == {str(i) for i in range(12)}
    assert score(tmp_path)[0]["rows"] == 12


def answers(*indices: int) -> list[Prediction]:
    return [Prediction(index=str(i), prediction="yes") for i in indices]


def test_parts_are_taken_in_once(tmp_path: Path) -> None:
    path = tmp_path / "odd[name].v1.jsonl"
    with Predictions(path) as stored:
        stored.append(answers(0, 1))
        with Predictions(part(path, 1)) as second:
            second.know(path)
            assert set(second.answers) == {"0", "1"}
            second.append(answers(2, 3))
        with part(path, 2).open("w") as file:  # the part of a process killed while it wrote, taken in by half
            file.write('{"index": "1", "prediction": "no"}\n{"index": "4", "prediction": "no"}\n{"index": "5"')
        assert stored_rows(path) == 6
        stored.take_in()
        assert [*stored.answers] == ["0", "1", "2", "3", "4"]
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == ["0", "1", "2", "3", "4"]
    assert json.loads(path.read_text().splitlines()[1])["prediction"] == "yes"
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, path.with_suffix(".lock").name}


def test_parts_still_written_are_waited_for(tmp_path: Path) -> None:
    path, waited = tmp_path / "small.jsonl", []
    part(path, 1).write_text('{"index": "0", "prediction": "no"}\n')
    lock = FileLock(part(path, 1).with_suffix(".lock"))
    lock.acquire()

    def waiting(of: Path) -> None:
        waited.append(of)
        lock.release()

    with Predictions(path, waiting) as stored:
        stored.take_in()
        assert set(stored.answers) == {"0"}
    assert waited == [part(path, 1)]


@dataclass(frozen=True)
class Pair(ProcessGroup):
    """Two processes of which the other one had `failure` in every step."""

    size: int = 2
    failure: Failure | None = None

    def gather(self, value: Any) -> list[Any]:
        return [value, self.failure]


def test_steps_end_alike_in_every_process() -> None:
    with ALONE.step(), Pair().step():
        pass
    with (
        pytest.raises(UserError, match="process 1: disk full"),
        Pair(failure=Failure.of(UserError("disk full"))).step(),
    ):
        pass
    with pytest.raises(RuntimeError, match="process 1: KeyError"), Pair(failure=Failure.of(KeyError("a"))).step():
        pass
    with (
        pytest.raises(ZeroDivisionError, match="own error"),
        Pair(failure=Failure.of(UserError("disk full"))).step(),
    ):
        raise ZeroDivisionError("own error")


def test_every_row_has_one_owner() -> None:
    rows = list(range(7))
    shares = [list(ProcessGroup(rank, 3).share(rows)) for rank in range(3)]
    assert sorted(row for share in shares for row in share) == rows
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
