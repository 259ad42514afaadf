"""Commands about a grid and the installation: `status`, `doctor`, `completion`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.records import dataset, run, timed
from tests.results.test_store import store
from uniprune.cli.completion import bash, fish
from uniprune.cli.main import main
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.reports import installation
from uniprune.reports.installation import Finding
from uniprune.reports.progress import not_begun, progress

DONE = run("none", {"x": dataset([1.0, 0.0], timing=timed(0.5))})
OPEN = run("one", {"x": dataset([1.0, 0.0]), "y": dataset(rows=4, timing=timed(0.5))})
HALTED = run("two", {"y": dataset(rows=4)})


def test_progress_says_what_runs_what_stopped_and_how_long_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = store(tmp_path, DONE, OPEN, HALTED)
    for record, rows in ((OPEN, 1), (HALTED, 2)):
        path = tmp_path / record.identity / "y.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:rows]))
    os.utime(tmp_path / HALTED.identity / "y.jsonl", (0, 0))
    found = {one.identity: one for one in progress(stored, list(stored.records(lambda _: None)))}
    assert [one.state for one in found.values()] == ["stopped", "running", "scored"]
    running = found[OPEN.identity]
    assert (running.scored, running.begun, running.stored, running.rows) == (1, 2, 3, 6)
    assert running.left == 1.5, "three rows of half a second"
    assert main(["status", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "3 runs: 1 scored, 1 running, 1 stopped; 7 of 12 rows" in printed
    assert DONE.identity not in printed
    assert main(["status", "--output", str(tmp_path), "--all"]) == 0
    assert DONE.identity in capsys.readouterr().out


def test_runs_of_a_grid_that_are_not_begun_are_named() -> None:
    def cell(method: str, ratio: float, seed: int = 0) -> RunSpec:
        return RunSpec("m", MethodSpec(method, ratio, seed=seed))

    cells = [cell("none", 1.0), cell("fastv", 0.5), cell("fastv", 0.25), cell("divprune", 0.5)]
    assert not_begun(cells, [DONE, run("fastv", {})]) == ["m fastv 0.25", "m divprune 0.5"]
    random = run("random-pre", {}).model_copy(update={"random": (True,)})
    second = cell("random-pre", 0.5, seed=1)
    assert not_begun([cell("random-pre", 0.5), second], [random]) == [f"m {second.choice.label}"]


def test_findings_come_with_remedies_and_one_broken_package_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("no kit here")

    monkeypatch.setattr(installation, "_kit", broken)
    monkeypatch.setattr(installation, "_hub", lambda: iter([Finding("hub", "note", "away", "use a mirror")]))
    monkeypatch.setenv("LMUData", str(tmp_path / "other"))
    assert main(["doctor", "--data-dir", str(tmp_path), "--output", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split()[:2] for line in lines if not line.startswith(" ")]
    assert ["ok", "Python:"] in heads
    assert ["ok", "torch:"] in heads
    assert ["note", "LMUData:"] in heads
    assert "missing error: RuntimeError: no kit here" in lines
    assert lines[-1] == "1 things are missing"
    for number, line in enumerate(lines):
        if line.startswith("note") and "GPU" not in line:
            assert lines[number + 1].lstrip().startswith("-> ")


WORDS = {"run": ["--method", "--model", "--output"], "leaderboard": ["--latex", "--csv"]}
NAMES = {"methods": ["divprune", "fastv"], "benchmarks": ["pope"], "models": ["m"]}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("lea", "leaderboard"),
        ("run --me", "--method"),
        ("run --method div", "divprune"),
        ("run --method divprune fa", "fastv"),
        ("--method f", "fastv"),
        ("leaderboard --l", "--latex"),
    ],
)
def test_bash_completes_commands_options_and_names(typed: str, expected: str) -> None:
    words = ["uniprune", *typed.split()]
    given = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _uniprune; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", f"{bash(WORDS, NAMES)}\n{given}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def test_fish_has_a_line_per_option_and_the_command_prints_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    lines = fish(WORDS, NAMES).splitlines()
    assert len(lines) == 6
    assert "complete -c uniprune -n '__fish_seen_subcommand_from run' -l method -x -a 'divprune fastv'" in lines
    assert main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
