"""Several folders of runs read as one, and merged into one: nothing is lost, what differs is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.records import dataset, run
from tests.results.test_store import store
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.results.fidelity import FidelityCache
from uniprune.results.folders import ResultFolders
from uniprune.results.merge import merge
from uniprune.results.records import DatasetRecord, RunRecord
from uniprune.results.store import Store


def one(**benchmarks: DatasetRecord) -> RunRecord:
    return run("one", benchmarks)


BASE = run("none", {"x": dataset([1.0, 1.0])})
ONE = one(x=dataset([1.0, 0.0]), y=dataset([1.0]))
ID = ONE.identity


def read(*roots: Path) -> tuple[dict[str, RunRecord], list[str]]:
    notes: list[str] = []
    return {record.identity: record for record in ResultFolders(roots).records(notes.append)}, notes


def test_a_run_in_several_folders_has_the_benchmarks_of_all(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    store(a, one(x=dataset([1.0, 0.0])), BASE)
    store(b, one(y=dataset([1.0])))
    found, notes = read(a, b, a)
    assert {name: list(record.datasets) for name, record in found.items()} == {ID: ["x", "y"], BASE.identity: ["x"]}
    assert not notes
    folders = ResultFolders([a, b])
    records = {record.identity: record for record in folders.records()}
    assert [folders.answers(ID, name).parent.parent for name in "xy"] == [a, b]
    fidelity = FidelityCache(folders)(records[BASE.identity], records[ID], "x")
    assert fidelity is not None
    assert fidelity.same == [1, 1]


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_copies_the_scored_one_with_more_rows_counts_and_the_other_is_named(
    turned: bool, tmp_path: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    store(a, one(x=dataset(rows=3), y=dataset([1.0])))
    store(b, one(x=dataset([1.0, 0.0]), y=dataset([1.0])))
    found, notes = read(*((b, a) if turned else (a, b)))
    assert found[ID].datasets["x"].score is not None
    assert notes[-1] == f"{ID} x: {b} and {a} have different results of this run; those of {b} count"
    assert not any(" y:" in note for note in notes), "equal copies differ in nothing"


def test_a_folder_without_runs_beside_others_is_refused(tmp_path: Path) -> None:
    store(tmp_path / "a", ONE)
    with pytest.raises(UserError, match=r"no run is stored in '.*nowhere'; name folders of runs"):
        ResultFolders([tmp_path / "a", tmp_path / "nowhere"]).records()


def lines(root: Path, name: str = "x") -> list[str]:
    return (root / ID / f"{name}.jsonl").read_text().splitlines()


def test_merging_loses_nothing_and_leaves_the_folders_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    store(a, one(x=dataset([1.0, 0.0])), BASE)
    store(b, one(x=dataset([1.0, 0.0]), y=dataset([1.0])))
    (a / "notes.txt").write_text("mine")
    before = sorted((path, path.stat().st_mtime_ns) for root in (a, b) for path in root.rglob("*"))
    assert main(["merge", str(a), str(b), "--output", str(c)]) == 0
    assert f"not copied: {a / 'notes.txt'}" in capsys.readouterr().out
    assert sorted((path, path.stat().st_mtime_ns) for root in (a, b) for path in root.rglob("*")) == before
    assert [*ResultFolders([c]).records()] == [*ResultFolders([a, b]).records()]
    assert main(["merge", str(a), str(b), "--output", str(c)]) == 0, "a second time changes nothing"
    assert [*ResultFolders([c]).records()] == [*ResultFolders([a, b]).records()]


def test_rows_that_only_one_folder_has_are_kept_and_named_as_unscored(tmp_path: Path) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    store(a, one(x=dataset([1.0, 0.0])))
    store(b, one(x=dataset([1.0, 0.0])))
    path = b / ID / "x.jsonl"
    path.write_text(path.read_text().replace('"index": "1"', '"index": "7", "later": "field"'))
    _, note = merge([a, b], c)
    assert note == f"{ID} x: 3 rows of 2 folders together; running the command of this run again scores them"
    assert [json.loads(line)["index"] for line in lines(c)] == ["0", "1", "7"]
    assert json.loads(lines(c)[2])["later"] == "field", "what this version does not know is kept"
    doubts: list[str] = []
    assert [*Store(c).records(doubts.append)]
    assert "scored on 2 rows" in doubts[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: (b / ID / "x.jsonl", '"yes"', '"no"'), "answer 2 of 2 rows differently, such as row 0"),
        (lambda b: (b / ID / "x.record.json", '"data": "d"', '"data": "e"'), "are of different data files or prompts"),
    ],
    ids=["answers", "data"],
)
def test_folders_that_contradict_each_other_are_refused_before_anything_is_written(
    change: object, reason: str, tmp_path: Path
) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    store(a, ONE)
    store(b, ONE)
    assert callable(change)
    path, old, new = change(b)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=f"nothing is merged:\n{ID} x: .*a and .*b {reason}; move one"):
        merge([a, b], c)
    assert not c.exists()
