"""Stored files that count: copies, altered and damaged records are left out by name, folders of machines add up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.records import dataset, run
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.results.fidelity import FidelityCache
from uniprune.results.leaderboard import leaderboard
from uniprune.results.predictions import Prediction, Predictions
from uniprune.results.records import RunRecord
from uniprune.results.store import Store

Change = Callable[[Path], object]


def store(root: Path, *runs: RunRecord) -> Store:
    """Store runs with an answer for each row of each benchmark."""
    stored = Store(root)
    for record in runs:
        for name, entry in record.datasets.items():
            with Predictions(stored.predictions(record.identity, name)) as file:
                file.append(Prediction(index=str(row), prediction="yes") for row in range(entry.rows))
            size = stored.size(record.identity, name)
            stored.update(record, name, entry.model_copy(update={"size": size}))
    return stored


def read(stored: Store) -> tuple[list[RunRecord], list[str]]:
    doubts: list[str] = []
    return list(stored.records(doubts.append)), doubts


GOOD, OTHER = run("good", {"x": dataset([1.0, 0.0]), "y": dataset([1.0])}), run("other", {"x": dataset([0.0, 0.0])})
NAME = OTHER.identity


def alter(file: str, old: str, new: str) -> Change:
    def change(root: Path) -> None:
        text = (root / NAME / file).read_text()
        assert old in text
        (root / NAME / file).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        (lambda root: (root / NAME).rename(root / "moved"), rf"moved is a copy of run {NAME}, .*name it {NAME}"),
        (alter("record.json", '"ratio": 0.5', '"ratio": 0.9'), rf"{NAME}/record.json was altered: .* move it away"),
        (alter("record.json", NAME, GOOD.identity), rf"{NAME}/record.json was altered: .* not of {GOOD.identity}"),
        (alter("record.json", '"format": 3', '"format": 2'), rf"{NAME}/record.json is a record of format 2"),
        (alter("record.json", "{", ""), rf"{NAME}/record.json is not a run record"),
        (lambda root: (root / NAME / "record.json").unlink(), rf"{NAME} has answers, but no record.json"),
        (alter("x.record.json", '"rows"', '"lines"'), rf"{NAME}/x.record.json is not a run record"),
        (alter("x.record.json", '"value": 0', '"value": 900'), "not a run record .*score.value, Input"),
        (alter("x.record.json", '"0": 0', '"0": -1'), "not a run record .*per_item.0, Input"),
        (alter("x.record.json", '"rows": 2', '"rows": NaN'), r"x.record.json is not a run record \(.*rows is nan"),
        (
            lambda root: shutil.copy(root / GOOD.identity / "y.record.json", root / NAME / "y.record.json"),
            rf"{NAME}/y.record.json has the results of 'y' in run '{GOOD.identity}'",
        ),
        (
            lambda root: (root / NAME / "x.record.json").rename(root / NAME / "z.record.json"),
            rf"{NAME}/z.record.json has the results of 'x' in run '{NAME}'",
        ),
    ],
    ids=range(12),
)  # fmt: skip
def test_a_file_that_cannot_be_believed_is_left_out_by_name_and_hides_no_other(
    change: Change, doubt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = store(tmp_path, GOOD, OTHER)
    change(tmp_path)
    records, doubts = read(stored)
    good = next(record for record in records if record.identity == GOOD.identity)
    assert set(good.datasets) == {"x", "y"}
    assert any(str(tmp_path) in one and one.startswith("left out: ") for one in doubts)
    with pytest.raises(UserError, match=doubt):
        list(stored.records())
    assert main(["leaderboard", "--output", str(tmp_path), "--md", str(tmp_path / "board.md")]) == 0
    assert "".join(doubts[0].split()) in "".join(capsys.readouterr().out.split())
    assert doubts[0] in (tmp_path / "board.md").read_text()


def test_a_backup_copy_is_no_further_seed(tmp_path: Path) -> None:
    stored = store(tmp_path, GOOD)
    shutil.copytree(tmp_path / GOOD.identity, tmp_path / f"{GOOD.identity}.bak")
    records, doubts = read(stored)
    assert [record.identity for record in records] == [GOOD.identity]
    board = leaderboard(records, None, doubts)
    assert [row["seed"] for row in board.rows] == [0]
    assert f"{GOOD.identity}.bak is a copy of run {GOOD.identity}" in board.notes[-1]
    assert board.only({GOOD.identity}).notes == board.notes


def test_folders_of_two_machines_add_up(tmp_path: Path) -> None:
    first = GOOD.model_copy(update={"datasets": {"x": GOOD.datasets["x"]}})
    second = GOOD.model_copy(update={"datasets": {"y": GOOD.datasets["y"]}})
    store(tmp_path / "a", first, OTHER)
    store(tmp_path / "b", second)
    for one in ("a", "b"):
        shutil.copytree(tmp_path / one, tmp_path / "both", dirs_exist_ok=True)
    records, doubts = read(Store(tmp_path / "both"))
    assert not doubts
    assert {record.identity: set(record.datasets) for record in records} == {
        GOOD.identity: {"x", "y"},
        NAME: {"x"},
    }


@pytest.mark.parametrize(
    ("rows", "doubt"),
    [(1, "scored on 2 rows, but x.jsonl holds 1 rows now: .* --data x, mends"), (3, "changed since"), (0, "holds 0")],
)
def test_a_score_of_other_predictions_than_those_stored_is_named(rows: int, doubt: str, tmp_path: Path) -> None:
    """As after copying the same benchmark of another machine over it."""
    stored = store(tmp_path, OTHER)
    path = stored.predictions(NAME, "x")
    path.unlink()
    if rows:
        with Predictions(path) as file:
            file.append(Prediction(index=str(row), prediction="no") for row in range(rows))
    records, doubts = read(stored)
    assert set(records[0].datasets) == {"x"}
    with pytest.raises(UserError, match=doubt):
        list(stored.records())
    assert leaderboard(records, None, doubts).notes[-1] == doubts[0]


def test_answers_without_a_record_are_named(tmp_path: Path) -> None:
    stored = store(tmp_path, GOOD)
    (tmp_path / GOOD.identity / "y.record.json").unlink()
    records, doubts = read(stored)
    assert set(records[0].datasets) == {"x"}
    remedy = "running the command of this run again, with --data y, scores them."
    assert doubts == [f"{GOOD.identity} y: answers without a score: {remedy}"]


def test_a_damaged_answer_costs_its_comparison_only(tmp_path: Path) -> None:
    base = run("none", {"x": dataset([1.0, 1.0])})
    stored = store(tmp_path, base, OTHER)
    path = stored.predictions(NAME, "x")
    path.write_text("garbage" + path.read_text()[7:])
    records, doubts = read(stored)
    board = leaderboard(records, FidelityCache(stored, doubts.append), doubts)
    agreement = {row["method"]: row["agreement %"] for row in board.rows}
    assert agreement["other"] is None
    assert agreement["none"] is not None
    assert any(note.startswith("not compared: ") and "x.jsonl line 1" in note for note in board.notes)


@pytest.mark.parametrize("content", ["null", "[]", '{"state": [], "fidelity": {}}', '{"state": 1}'])
def test_a_kept_comparison_of_another_form_is_made_again(content: str, tmp_path: Path) -> None:
    base = run("none", {"x": dataset([1.0, 1.0])})
    stored = store(tmp_path, base, OTHER)
    kept = tmp_path / NAME / "x.fidelity.json"
    kept.write_text(content)
    found = FidelityCache(stored)(base, OTHER, "x")
    assert found is not None
    assert found.same == [1, 1]
    assert json.loads(kept.read_text())["fidelity"]["same"] == [1, 1]


def test_reading_writes_nothing(tmp_path: Path) -> None:
    stored = store(tmp_path, GOOD, OTHER)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    read(stored)
    assert stored.read("absent") is None
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
