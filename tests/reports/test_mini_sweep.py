"""Papers' sweeps through the command line: shown without their models, and run whole on stand-ins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from uniprune.cli.main import main
from uniprune.reports.papers.tables import TABLES, read_table, table_names

pytestmark = pytest.mark.end_to_end


def folders(root: Path) -> list[str]:
    return ["--output", str(root / "results"), "--data-dir", str(root / "data")]


@pytest.mark.parametrize("name", table_names())
def test_every_sweep_can_be_shown_without_its_models(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(TABLES / f"{name}.yaml"), "--dry-run", *folders(tmp_path)]) == 0
    told = capsys.readouterr()
    assert f"{len(read_table(name).sweep.cells())} runs, 0 done" in told.out
    assert not re.search("unknown (benchmark|model|method|field)", told.out + told.err)


def test_a_whole_sweep_runs_on_stand_ins_and_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "zspaprune-table3"
    assert main(["sweep", str(TABLES / f"{name}.yaml"), "--mini", "--limit", "1", *folders(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["compare", "--paper", name, "--mini", "--output", str(tmp_path / "results")]) == 0
    told = capsys.readouterr().out
    assert "run: 3 of 3" in told
    assert "to run the rest" not in told
