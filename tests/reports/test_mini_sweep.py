"""Papers' sweeps through the command line: shown without their models, and run whole on stand-ins."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tests.helpers.paper_tables import tables
from uniprune.cli.main import main
from uniprune.evaluation.plan import RunSettings
from uniprune.evaluation.sweep import Sweep
from uniprune.reports.papers.mini import read_stand_ins
from uniprune.reports.papers.tables import TABLES, read_table

pytestmark = pytest.mark.end_to_end


def folders(root: Path) -> list[str]:
    return ["--output", str(root / "results"), "--data-dir", str(root / "data")]


@tables
def test_every_sweep_can_be_shown_without_its_models(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(TABLES / f"{name}.yaml"), "--dry-run", *folders(tmp_path)]) == 0
    told = capsys.readouterr()
    assert f"{len(read_table(name).sweep.cells())} runs, 0 done" in told.out
    assert not re.search("unknown (benchmark|model|method|field)", told.out + told.err)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, mini_data: Path) -> Sweep:
    """One planner for all tables: its stand-ins are read once."""
    return Sweep(RunSettings(output=tmp_path_factory.mktemp("plans") / "results", data_dir=mini_data))


@pytest.mark.sample(2)
@tables
def test_a_plan_has_every_benchmark_of_every_run(name: str, sweep: Sweep) -> None:
    """Rows of a table that differ in their benchmark only are one run with all of them."""
    cells = [dataclasses.replace(cell, limit=1) for cell in read_stand_ins().sweep(read_table(name).sweep).cells()]
    planned = [item for cell in cells for item in sweep.plan([cell])]
    if name == "vidcom2-qwen3-vl":  # the tiny model of its family shows images only
        assert all(item.failure and "no placeholder for a video" in item.failure.message for item in planned)
        return
    assert all(item.failure is None for item in planned)
    expected = {(item.identity, benchmark) for item in planned for benchmark in item.rows}
    found = [(item.identity, benchmark) for item in sweep.plan(cells) for benchmark in item.rows]
    assert set(found) == expected
    assert len(found) == len(expected)
    if name == "zspaprune-table4":
        assert len({item.identity for item in planned}) < len(planned)


def test_a_whole_sweep_runs_on_stand_ins_and_is_compared(
    tmp_path: Path, mini_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, output = "zspaprune-table3", str(tmp_path / "results")
    words = ["--mini", "--limit", "1", "--output", output, "--data-dir", str(mini_data)]
    assert main(["sweep", str(TABLES / f"{name}.yaml"), *words]) == 0
    capsys.readouterr()
    assert main(["compare", "--paper", name, "--mini", "--output", output]) == 0
    told = capsys.readouterr().out
    assert "run: 3 of 3" in told
    assert "to run the rest" not in told
