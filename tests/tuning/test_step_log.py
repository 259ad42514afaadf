"""The step log of a training: reading never writes, and no failure of writing loses a stored line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.disk import full_disk
from uniprune.errors import UserError
from uniprune.tuning.step_log import BatchLine, ProbeLine, StepLine, StepLog


def step(number: int, loss: float | None = 1.5) -> StepLine:
    batch = BatchLine(index=[3, 4], kept=[1], removed={1: [0, 2]}, quadrant=[2, 4])
    return StepLine(
        step=number, loss=loss, tokens=40, answers=20, run=10, trained=5, seconds={"step": 0.1}, batches=[batch]
    )


def probe(number: int) -> ProbeLine:
    return ProbeLine(step=number, perplexity=[2.0], entropy=[0.5])


def fill(path: Path, steps: int) -> StepLog:
    log = StepLog(path)
    log.append(probe(0))
    for number in range(steps):
        log.append(step(number))
        log.append(probe(number + 1))
    return log


def test_opening_a_log_reads_only_even_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    fill(path, 100)
    content, stamp = path.read_bytes(), path.stat().st_mtime_ns
    with full_disk(len(content) // 20):
        log = StepLog(path)
        assert len(log.steps) == 100
        assert len(log.probes) == 101
    assert path.read_bytes() == content
    assert path.stat().st_mtime_ns == stamp


def test_a_missing_log_is_empty_and_is_not_created(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "run" / "steps.jsonl")
    assert not log.steps
    log.rewind(0)
    assert not (tmp_path / "run").exists()


def test_lines_come_back_as_they_were_stored(tmp_path: Path) -> None:
    log = fill(tmp_path / "steps.jsonl", 2)
    log.append(step(2, loss=None))
    again = StepLog(tmp_path / "steps.jsonl")
    assert again.steps == log.steps == [step(0), step(1), step(2, loss=None)]
    assert again.probes == log.probes == [probe(0), probe(1), probe(2)]


def test_lines_that_another_process_appends_after_the_log_was_opened_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    fill(path, 3)
    reader, writer = StepLog(path), StepLog(path)
    writer.append(step(3))
    assert len(reader.steps) == 3
    assert [line.step for line in StepLog(path).steps] == [0, 1, 2, 3]


@pytest.mark.parametrize("done", [0, 2, 5])
def test_rewinding_drops_what_came_after_the_checkpoint(tmp_path: Path, done: int) -> None:
    path = tmp_path / "steps.jsonl"
    log = fill(path, 5)
    log.rewind(done)
    for current in (log, StepLog(path)):
        assert current.steps == [step(number) for number in range(done)]
        assert current.probes == [probe(number) for number in range(done + 1)]


def test_rewinding_to_the_end_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    log = fill(path, 3)
    content, stamp = path.read_bytes(), path.stat().st_mtime_ns
    log.rewind(3)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, stamp)


def test_rewinding_and_appending_on_a_full_disk_keep_the_old_lines(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    log = fill(path, 20)
    content = path.read_bytes()
    with (
        full_disk(len(content) // 2),
        pytest.raises(UserError, match="everything stored before is kept"),
    ):
        log.rewind(15)
    with full_disk(len(content) + 10), pytest.raises(UserError, match="cannot write"):
        log.append(step(20))
    assert path.read_bytes() == content
    assert len(log.steps) == len(StepLog(path).steps) == 20
    assert {file.name for file in tmp_path.iterdir()} <= {"steps.jsonl", "steps.lock"}


def test_a_line_that_a_kill_cut_short_is_skipped_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    fill(path, 1)
    content = path.read_bytes() + b'{"step": 1, "lo'
    path.write_bytes(content)
    log = StepLog(path)
    assert [line.step for line in log.steps] == [0]
    assert path.read_bytes() == content
    log.append(step(1))
    assert [line.step for line in StepLog(path).steps] == [0, 1]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    fill(path, 1)
    path.write_bytes(path.read_bytes().replace(b'"tokens": 40', b'"tokens": "many"'))
    with pytest.raises(UserError, match=r"steps\.jsonl line 2 is not a step of this version .*; move its folder away"):
        StepLog(path)
