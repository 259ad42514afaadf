"""Runs that left out different rows are shown, but neither ranked nor paired: on records made of numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.records import dataset, run, score
from uniprune.reports.findings.pairs import pairs_csv
from uniprune.reports.findings.study import Study, common
from uniprune.results.comparison import RunComparison, SeedGroup, comparable, groups
from uniprune.results.fidelity import Fidelity, FidelityCache
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import DatasetRecord, RunRecord
from uniprune.results.statistics import RankInterval
from uniprune.results.store import Store

ITEMS = [str(i) for i in range(20)]


def lacking(right: int, *rows: str) -> DatasetRecord:
    """A benchmark of twenty rows without these, the first `right` of the others correct."""
    asked = [item for item in ITEMS if item not in rows]
    scored = score({item: float(i < right) for i, item in enumerate(asked)})
    entry = dataset(scored, faulty=dict.fromkeys(rows, "refused"))
    return entry.model_copy(update={"rows": 20, "refused": len(rows), "left_out": len(rows)})


def one(comparison: RunComparison, method: str) -> SeedGroup:
    [group] = [group for group in comparison.groups if group.setup.method.name == method]
    return group


RECORDS = [
    run("none", {"x": lacking(19)}),
    run("a", {"x": lacking(15)}),
    run("b", {"x": lacking(10)}),
    run("c", {"x": lacking(19, "3")}),
    run("d", {"x": lacking(18, "3")}),
    run("e", {"x": lacking(18, "4")}),
]


def test_ranks_relatives_and_tests_are_among_runs_that_left_out_the_same_rows() -> None:
    rows = {row["method"]: row for row in leaderboard(RECORDS).rows}
    ranks = {name: rank.rank for name in "abcde" if isinstance(rank := rows[name]["rank"], RankInterval)}
    assert ranks == {"a": 1, "b": 2, "c": 1, "d": 2}  # e has no rivals
    assert [rows[name]["relative %"] is None for name in "abcde"] == [False, False, True, True, True]
    assert [str(rows[name]["x"]) for name in "ace"] == ["75.0", "100.0", "94.7"]
    assert [(str(rows[name]["rows"]), rows[name]["left out"]) for name in "ac"] == [("20", 0), ("19", 1)]
    comparison = RunComparison(RECORDS)
    assert comparable(one(comparison, "a"), one(comparison, "b"), "x")
    assert comparable(one(comparison, "c"), one(comparison, "d"), "x")
    assert not comparable(one(comparison, "a"), one(comparison, "c"), "x")
    assert not comparable(one(comparison, "d"), one(comparison, "e"), "x")
    study = Study(RECORDS)
    assert common([one(study.comparison, "a"), one(study.comparison, "e")]) == []
    tested = {tuple(line.split(",")[4:6]) for line in pairs_csv(study).splitlines()[1:]}
    assert tested == {("a", "b"), ("c", "d")}


def test_a_note_names_who_left_out_which_number_of_rows_and_the_remedy() -> None:
    [note] = [note for note in leaderboard(RECORDS).notes if note.startswith("x:")]
    assert (
        "(0 of 20 rows by m none, m a 0.5, m b 0.5; 1 of 20 rows by m c 0.5, m d 0.5; 1 of 20 rows by m e 0.5)" in note
    )
    assert "delete the lines of these rows in x.jsonl" in note
    alike = leaderboard(RECORDS[3:5]).notes
    assert any("could not be asked: x 1 of 20 rows (*.record.json)" in note for note in alike)
    assert not any(note.startswith("x:") for note in alike)
    assert not any("eft out" in note for note in leaderboard(RECORDS[:3]).notes)


def test_a_seed_that_left_out_other_rows_is_no_repetition() -> None:
    seeds = [run("a", {"x": lacking(15, *["3"] * (seed == 1))}, seed=seed) for seed in range(3)]
    assert [[one.setup.seed for one in group.runs] for group in groups(seeds)] == [[0, 2], [1]]
    assert [row["seed"] for row in leaderboard(seeds).rows] == [1, "2 seeds"]
    judged = run("a", {"x": dataset(score([1.0] * 20, judge="model"))}, seed=3)
    assert len(groups([*seeds, judged])) == 3


def test_a_run_without_a_scorable_row_has_no_number_and_a_note() -> None:
    nothing = dataset(faulty=dict.fromkeys(ITEMS[:10], "refused"), answered=0, refused=10, left_out=10)
    board = leaderboard([run("a", {"x": nothing})])
    assert nothing.unscorable
    assert [board.rows[0].get(column) for column in ("x", "average", "rank", "relative %")] == [None] * 4
    assert any("x: no score, all 10 rows are left out" in note for note in board.notes)
    assert not any("not scored yet" in note for note in board.notes)


def test_agreement_is_of_the_rows_that_both_were_scored_on(tmp_path: Path) -> None:
    """A row left out with its group has a prediction, which counts as little as that of a refused row."""
    store = Store(tmp_path)

    def write(record: RunRecord, said: dict[str, str]) -> None:
        path = store.predictions(record.identity, "x")
        path.write_text("".join(json.dumps({"index": i, "prediction": text}) + "\n" for i, text in said.items()))

    base, pruned = (run(name, {"x": lacking(9, "0", "1")}) for name in ("none", "a"))
    write(base, {"0": "yes", "2": "yes", "3": "yes"})
    write(pruned, {"0": "no", "2": "yes", "3": "no"})
    cache = FidelityCache(store)
    assert cache(base, pruned, "x") == Fidelity(["2", "3"], [1, 0], None)
    less = pruned.model_copy(update={"datasets": {"x": lacking(9, "0", "1", "3")}})
    assert cache(base, less, "x") == Fidelity(["2"], [1], None)
    comparison = RunComparison([base, less], cache)
    assert comparison.fidelity(one(comparison, "a")) is None
    comparison = RunComparison([base, pruned], cache)
    found = comparison.fidelity(one(comparison, "a"))
    assert found is not None
    assert found.agreement.value == pytest.approx(50)


def test_gradings_that_could_not_be_read_of_different_rows_have_a_note() -> None:
    read = score(dict.fromkeys(ITEMS, 0.5))
    unread = score(dict.fromkeys(ITEMS[2:], 0.5), rows=20, unparsed=2)
    words = "could not be read and are in no mean"
    for same in (read, unread):
        notes = leaderboard([run(name, {"x": dataset(same)}) for name in "ab"]).notes
        assert not any(words in note for note in notes)
    notes = leaderboard([run("a", {"x": dataset(read)}), run("b", {"x": dataset(unread)})]).notes
    assert any(f"{words} (0 of 20 rows of m a 0.5, 2 of 20 rows" in note for note in notes)
