"""Every form of the leaderboard gives rows, batch and machine with the numbers that depend on them."""

from __future__ import annotations

import csv
import io
from typing import Any

from tests.helpers import records
from tests.helpers.records import dataset, timed
from uniprune.results.leaderboard import Leaderboard, leaderboard
from uniprune.results.records import DatasetRecord, Environment, RunRecord

H100 = Environment(versions={}, git=None, device="NVIDIA H100", threads=8)
A100 = H100.model_copy(update={"device": "NVIDIA A100"})


def entry(whole: int | None, batch: str = "8", machine: Environment = H100) -> DatasetRecord:
    return dataset([1.0, 0.0] * 5, whole=whole, batching={batch: 10}, environments=[machine], timing=timed(0.01))


def run(method: str, datasets: dict[str, DatasetRecord], device: str = "cuda", **fields: Any) -> RunRecord:
    return records.run(method, datasets, device=device, **fields)


def board(*runs: RunRecord) -> Leaderboard:
    return leaderboard(runs)


def cells(table: Leaderboard, column: str) -> list[str]:
    return [str(row[column]) for row in table.rows]


def test_a_limited_run_gives_its_share_of_the_rows_in_every_form() -> None:
    table = board(run("none", {"a": entry(100)}, limit=10), run("x", {"a": entry(100)}, limit=10))
    assert cells(table, "rows") == ["10 of 100"] * 2
    assert "Not the whole benchmarks: --limit 10 ran a 10 of 100." in table.notes
    assert "10 of 100" in table.markdown()
    [first, _] = csv.DictReader(io.StringIO(table.csv()))
    assert (first["rows"], first["rows of"]) == ("10", "100")


def test_only_runs_with_fewer_rows_are_limited() -> None:
    table = board(
        run("none", {"a": entry(10)}, limit=1000), run("x", {"a": entry(10)}), run("y", {"a": entry(100)}, limit=10)
    )
    assert sorted(cells(table, "rows")) == ["10", "10", "10 of 100"]
    assert "Not the whole benchmarks in 1 of 3 lines: --limit 10 ran a 10 of 100." in table.notes


def test_a_limited_run_whose_whole_is_unknown_is_limited() -> None:
    assert cells(board(run("x", {"a": entry(None)}, limit=10)), "rows") == ["10 of an unknown number"]


def test_times_have_their_batch_size_and_machine() -> None:
    table = board(run("none", {"a": entry(10)}), run("x", {"a": entry(10)}))
    assert "Times: batch size 8 on NVIDIA H100; batch TTFT is that of a whole batch." in table.notes
    assert "TTFT ms" not in table.columns
    [first, _] = csv.DictReader(io.StringIO(table.csv()))
    assert (first["batch"], first["device"], first["batch TTFT ms"]) == ("8", "NVIDIA H100", "")


def test_times_of_other_batches_or_machines_are_said_not_to_compare() -> None:
    for other in (entry(10, batch="1"), entry(10, machine=A100)):
        table = board(run("none", {"a": entry(10)}), run("x", {"a": other}))
        assert any(note.startswith("Times compare at one batch size on one machine only") for note in table.notes)
    assert cells(table, "device") == ["NVIDIA H100", "NVIDIA A100"]


def test_a_processor_is_named_with_its_threads() -> None:
    assert cells(board(run("none", {"a": entry(10)}, device="cpu")), "device") == ["NVIDIA H100, 8 threads"]


def test_without_times_there_is_nothing_to_say_of_them() -> None:
    assert not any(note.startswith("Times") for note in board(run("none", {"a": dataset([1.0] * 10)})).notes)


def test_a_rank_of_one_is_no_rank() -> None:
    assert board(run("none", {"a": entry(10)}), run("x", {"a": entry(10)})).rows[1]["rank"] is None
