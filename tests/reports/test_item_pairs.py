"""`compare A B`: items, filters and the paired test by hand; runs found and paired by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.records import dataset, run, score
from tests.results.test_store import store
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.reports.item_pairs import FILTERS, StoredRun, compare_runs, setup_differences
from uniprune.reports.run_pairs import find_side, paired_runs
from uniprune.results.comparison import RunComparison
from uniprune.results.folders import ResultFolders
from uniprune.results.records import RunRecord
from uniprune.results.statistics import paired
from uniprune.results.store import Store

FIRST, SECOND = [1.0] * 6 + [0.0] * 4, [1.0] * 2 + [0.0] * 8
A = run("one", {"x": dataset(FIRST), "alone": dataset([1.0])})
B = run("two", {"x": dataset(SECOND)})


def sides(root: Path, *runs: RunRecord) -> list[StoredRun]:
    store(root, *runs)
    return [StoredRun(one, Store(root), one.setup.method.name) for one in runs]


def test_every_item_is_counted_once_and_the_test_is_that_of_the_statistics(tmp_path: Path) -> None:
    [found], notes = compare_runs(*sides(tmp_path, A, B), None, tmp_path)
    assert {name: found.count(name) for name in FILTERS} == {
        "differ": 4, "a-right": 4, "b-right": 0, "both-wrong": 4, "answers": 0, "all": 10,
    }  # fmt: skip
    assert found.scores == (60.0, 20.0)
    comparison = RunComparison([A, B])
    one, two = (comparison.score(group, "x") for group in comparison.groups)
    assert found.test == paired(one - two)
    assert notes[0] == "only A has a score of alone: not compared"
    assert "x: no questions" in notes[1]


@pytest.mark.parametrize(
    ("changed", "remark"),
    [
        (dataset(SECOND, data="other"), "the data files differ"),
        (dataset(SECOND, prompts="other"), "the rows or the prompts differ"),
        (dataset(score(SECOND, judge="rule")), "judge or scorer differ: exact , rule "),
        (dataset(SECOND[:9]), "different rows are left out; only items of both are counted"),
        (dataset(score(SECOND[:2], judge="rule")), "judge or scorer differ: exact , rule "),
    ],
    ids=["data", "prompts", "judge", "rows", "few"],
)
def test_scores_of_other_questions_are_not_tested_and_the_reason_is_given(
    changed: object, remark: str, tmp_path: Path
) -> None:
    other = run("two", {"x": changed})  # type: ignore[dict-item]
    [found], _ = compare_runs(*sides(tmp_path, A, other), None, tmp_path)
    assert found.test is None
    assert found.remark == remark


def test_settings_that_differ_are_named() -> None:
    assert setup_differences(A, B) == ["method: one | two"]
    changed = A.setup.method.model_copy(update={"code": "new"})
    later = run(changed, {}, dtype="bfloat16")
    assert setup_differences(A, later) == ["source of the method: c | new", "dtype: float32 | bfloat16"]


def find(word: str, *roots: Path) -> list[str]:
    return [one.record.identity for one in find_side(word, ResultFolders(roots), [])]


def test_a_side_is_a_folder_an_identity_a_method_or_a_method_at_a_ratio(tmp_path: Path) -> None:
    other = run("one", {"x": dataset(SECOND)}, ratio=0.25)
    store(tmp_path, A, B, other)
    assert find(str(tmp_path)) == sorted([A.identity, B.identity, other.identity])
    assert find(str(tmp_path / A.identity)) == [A.identity]
    assert find(A.identity[:6], tmp_path) == [A.identity]
    assert set(find("one", tmp_path)) == {A.identity, other.identity}
    assert find("one@0.25", tmp_path) == [other.identity]
    with pytest.raises(UserError, match=r"'thre' is no folder, and no run in .* there are .*one@0.5"):
        find("thre", tmp_path)


def test_runs_are_paired_by_what_differs_within_a_side(tmp_path: Path) -> None:
    more = [run(name, {"x": dataset(FIRST)}, ratio=ratio) for name in ("one", "two") for ratio in (0.1, 0.2)]
    stored = sides(tmp_path, *more)
    pairs, notes = paired_runs(stored[:2], stored[2:])
    assert [(one.record.setup.ratio, two.record.setup.ratio) for one, two in pairs] == [(0.1, 0.1), (0.2, 0.2)]
    assert not notes
    pairs, notes = paired_runs(stored[:1], stored[2:])
    assert [(one.record.setup.ratio, two.record.setup.ratio) for one, two in pairs] == [(0.1, 0.1)]
    assert notes == ["only in B: two"]
    with pytest.raises(UserError, match="no run of A has its like in B\nnot paired, because several are alike"):
        paired_runs(stored[:1], [stored[2], stored[2]])


def test_the_command_prints_tests_items_and_writes_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path, A, B)
    file = tmp_path / "items.csv"
    words = ["compare", "one", "two", "--output", str(tmp_path), "--lines", "2", "--csv", str(file)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("x  "))
    assert line.split()[:4] == ["x", "60.0", "20.0", "+40.0"]
    assert "x 2: A 1, B 0" in printed
    assert "… and 2 more items of x (--lines)" in printed
    assert "run.py show x:2 --model m --method one two --ratio 0.5 --data-dir data\n" in printed
    assert len(file.read_text().splitlines()) == 11
    for wrong, message in (
        (["compare", "one"], "two runs or folders, not 1"),
        (["compare", "one", "two", "--mini"], "leave out --paper"),
        (["compare", "--show", "all"], "--show is about the items of two runs"),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err
