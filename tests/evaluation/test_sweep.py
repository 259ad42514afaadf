"""Grids of runs: planned, evaluated model by model, resumed; a failure concerns its run only."""

from __future__ import annotations

import csv
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tests.cli.test_cli import PLUGINS, predictions, wait_for_rows
from tests.helpers.programs import Program
from uniprune.cli.main import main
from uniprune.evaluation.config import Block
from uniprune.registry import METHODS
from uniprune.results.store import DATASET, Store

pytestmark = pytest.mark.end_to_end

Checkpoint = Callable[[str], Path]


def sweep_file(folder: Path, *runs: dict[str, object]) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"title": "test", "runs": list(runs)}))
    return path


def words(file: Path, output: Path, *more: str) -> list[str]:
    plugins = [word for name in ("small_benchmark", "slow") for word in ("--plugin", str(PLUGINS / f"{name}.py"))]
    return ["sweep", str(file), "--output", str(output), *plugins, *more]


def contents(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.glob("*/*.jsonl")}


def test_a_run_is_scored_again_but_not_run_again_when_the_scorer_has_changed(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file(tmp_path, {"model": str(checkpoint("llava")), "method": "none", "data": "small", "limit": 3})
    assert main(words(file, tmp_path / "out")) == main(words(file, tmp_path / "out", "--dry-run")) == 0
    assert "1 runs, 1 done; 0 rows left" in capsys.readouterr().out
    before = contents(tmp_path / "out")
    [stored] = (tmp_path / "out").glob(f"*/small{DATASET}")
    record = json.loads(stored.read_text())
    record["score"]["scorer"] = "kit 1"
    stored.write_text(json.dumps(record))
    assert main(words(file, tmp_path / "out")) == 0
    assert "1 runs, 0 of them done before" in capsys.readouterr().err
    assert json.loads(stored.read_text())["score"]["scorer"] == ""
    assert contents(tmp_path / "out") == before


def test_a_grid_is_planned_asked_once_and_skipped_when_done(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, output = [str(checkpoint("llava")), str(checkpoint("internvl"))], tmp_path / "out"
    file = sweep_file(
        tmp_path,
        {"model": models, "method": ["none", "divprune"], "ratio": [0.25, 0.5], "data": "small", "limit": 3},
        {"model": models[0], "method": {"name": "fastv", "layer": 3}, "ratio": 0.5, "data": "small*", "limit": 3},
        {"model": models[0], "method": "none", "ratio": 0.7, "data": "small", "limit": 3},
    )
    assert main(words(file, output, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "7 runs, 0 done; 24 rows left" in shown
    assert "7 runs without an estimate" in shown
    assert not output.exists()

    assert main(words(file, output)) == 0
    printed = capsys.readouterr()
    assert "7 runs, 0 of them done before" in printed.err
    assert [printed.err.count(f"{model} (float32") for model in models] == [1, 1]
    board = list(csv.DictReader((output / "leaderboard.csv").open()))
    assert Counter(row["method"] for row in board) == {"none": 2, "divprune": 4, "fastv": 1}
    assert "divprune" in printed.out
    before = contents(output)
    assert len(before) == 8

    assert main(words(file, output)) == 0
    printed = capsys.readouterr()
    assert "7 runs, 7 of them done before" in printed.err
    assert "(float32" not in printed.err
    assert "divprune" in printed.out
    assert contents(output) == before

    more = sweep_file(
        tmp_path, {"model": models, "method": ["none", "fastv"], "ratio": 0.5, "data": "small", "limit": 3}
    )
    assert main(words(more, output, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "4 runs, 2 done; 6 rows left" in shown
    assert "evaluation takes about 0:00:" in shown
    assert "without an estimate" not in shown


def test_runs_of_a_model_share_image_features(checkpoint: Checkpoint, tmp_path: Path) -> None:
    grid = {"model": str(checkpoint("llava")), "method": ["none", "divprune", "fastv"], "ratio": [0.25, 0.5]}
    file = sweep_file(tmp_path, {**grid, "data": "small"})
    looks: list[str] = []

    def note(module: nn.Module, args: object, output: object) -> None:
        if not any(weight.is_meta for weight in module.parameters()):  # there only shapes are compared
            looks.append(type(module).__name__)

    hook = register_module_forward_hook(note)
    try:
        assert main(words(file, tmp_path / "shared", "--share-vision", "1")) == 0
        assert looks.count("CLIPVisionModel") == 3, "once for each of the pictures of the twelve rows"
        looks.clear()
        assert main(words(file, tmp_path / "alone")) == 0
        assert looks.count("CLIPVisionModel") > 5 * 2
    finally:
        hook.remove()
    printed = [
        {
            (path.parent.name, row["index"], row["prediction"])
            for path, lines in contents(tmp_path / folder).items()
            for row in map(json.loads, lines.splitlines())
        }
        for folder in ("shared", "alone")
    ]
    assert printed[0] == printed[1]
    assert len(printed[0]) == 5 * 12


def test_a_run_that_fails_does_not_stop_the_others(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lazy = tmp_path / "lazy.py"
    lazy.write_text(
        (PLUGINS / "slow.py").read_text().replace("slow", "lazy").replace("arange(keep)", "zeros(keep, dtype=int)")
    )
    methods = [{"name": "fastv", "layer": 9}, "lazy", "divprune"]
    file = sweep_file(
        tmp_path,
        {"model": str(tmp_path / "nowhere"), "method": "none", "data": "small"},
        {"model": str(checkpoint("llava")), "method": methods, "ratio": 0.5, "data": "small", "limit": 2},
    )
    assert main(words(file, tmp_path / "out", "--plugin", str(lazy))) == 1
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    for part in ("path of an existing folder", "layer 9 is outside", "lazy 0.5: PruningError"):
        assert any(part in line for line in errors), part
    records = list(Store(tmp_path / "out").records())
    scored = {record.setup.method.name for record in records if record.datasets["small"].score}
    assert scored == {"divprune"}
    assert "divprune" in printed.out


def test_cells_that_differ_in_their_benchmarks_only_are_one_run_with_all_of_them(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = {"model": str(checkpoint("llava")), "method": ["none", "divprune"], "ratio": 0.5, "limit": 2}
    file = sweep_file(tmp_path, {**block, "data": "small"}, {**block, "data": ["small", "mini-pope"]})
    arguments = words(file, tmp_path / "out", "--data-dir", str(tmp_path / "data"))
    assert main([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "2 runs, 0 done; 8 rows left" in shown
    assert shown.count("small, mini-pope") == 2
    assert main(arguments) == 0
    capsys.readouterr()
    records = list(Store(tmp_path / "out").records())
    assert [sorted(record.datasets) for record in records] == [["mini-pope", "small"]] * 2
    assert all(entry.score is not None for record in records for entry in record.datasets.values())

    path = next((tmp_path / "out").glob("*/mini-pope.jsonl"))
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert main([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "2 runs, 1 done; 1 rows left" in shown
    assert "mini-pope: scored on 2 rows, but mini-pope.jsonl holds 1 rows now" in shown
    assert main(arguments) == 0
    assert "2 runs, 1 of them done before" in capsys.readouterr().err
    assert {record.identity: record.datasets for record in Store(tmp_path / "out").records()}.keys() == {
        record.identity for record in records
    }


@pytest.mark.slow
def test_an_interrupted_sweep_resumes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    method = {"name": "slow", "set": {"seconds": 0.1}}
    grid = {"model": str(checkpoint("llava")), "method": ["none", method], "ratio": [0.25, 0.5], "data": "small"}
    arguments = words(sweep_file(tmp_path, grid), tmp_path / "out", "--batch-size", "2")
    stopped = Program(arguments)
    wait_for_rows(tmp_path / "out", 16)
    stopped.send_signal(signal.SIGINT)
    _, printed = stopped.communicate(timeout=200)
    assert stopped.returncode == 130
    assert "run the same command again to resume" in printed
    before = contents(tmp_path / "out")
    assert 16 <= len(predictions(tmp_path / "out")) < 36
    assert main(arguments) == 0
    after = contents(tmp_path / "out")
    assert all(after[path].startswith(data[: data.rfind(b"\n") + 1]) for path, data in before.items())
    assert len(after) == 3
    assert all(len({json.loads(line)["index"] for line in data.splitlines()}) == 12 for data in after.values())
    assert len(predictions(tmp_path / "out")) == 36


def test_seeds_are_runs_of_random_methods_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, random in (("divprune", False), ("random-pre", True)):
        monkeypatch.setattr(METHODS.get(name), "random", random, raising=False)
    block = Block(model="m", method=["divprune", "random-pre", "divprune+random-intra"], ratio=0.5, seed=[1, 2])
    assert {(cell.choice.name, cell.choice.seed) for cell in block.cells()} == {
        ("divprune", 0),
        ("random-pre", 1),
        ("random-pre", 2),
        ("divprune+random-intra", 1),
        ("divprune+random-intra", 2),
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--jobs", "2"], "add --ray"),
        (["--ray", "--jobs", "0"], "jobs 0 must be at least 1"),
        (["--ray", "--task-cpus", "-1"], "cannot take -1 CPUs"),
        (["--device", "cuda:9"], "cuda:9"),
    ],
)
def test_mistakes_get_one_clear_line(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep_file(tmp_path, {"model": "m", "method": "none", "data": "small"})
    assert main(words(file, tmp_path / "out", *more)) == 2
    assert message in capsys.readouterr().err
