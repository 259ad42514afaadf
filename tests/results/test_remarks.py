"""Remarks on rows: their counts, when they are noted, and the notes on batches of several sizes."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.helpers.records import dataset, run, score
from uniprune.cli import terminal_table
from uniprune.results.aggregate import batching
from uniprune.results.leaderboard import leaderboard
from uniprune.results.predictions import Prediction, prediction_lines
from uniprune.results.records import DatasetRecord, MethodRecord, RunRecord
from uniprune.results.remarks import CONTEXT, CUT, REMARKS, UNREAD, all_remarks, count_remarks, row_notes, score_notes

RIGHT = [1.0] * 200


def rows(*remarks: list[str]) -> list[Prediction]:
    return [Prediction(index=str(i), prediction="a", remarks=found) for i, found in enumerate(remarks)]


def entry(**fields: object) -> DatasetRecord:
    return dataset(RIGHT, **fields)


def notes(*runs: RunRecord) -> list[str]:
    return row_notes((one, name) for one in runs for name in one.datasets)


def test_remarks_are_counted_in_the_order_of_their_registry_and_none_is_lost() -> None:
    counted = count_remarks(rows([CUT], [CUT, CONTEXT], [], ["of a later version"]))
    assert list(counted.items()) == [(CONTEXT, 1), (CUT, 2), ("of a later version", 1)]
    assert count_remarks(rows([], [])) == {}


def test_pruning_points_that_moved_are_noted_once_for_a_model() -> None:
    method = MethodRecord(
        name="fastv", kind="intra-llm", passed={}, resolved=[], stages=[(4, 0.5)], moved=[(2, 4)], code="c"
    )
    words = (
        "prunes before layer 4 instead of 2, because it reads attention, which other layers of this model do not have"
    )
    one, two = (run(method, {"pope": entry(), "mme": entry()}, ratio) for ratio in (0.5, 0.25))
    assert list(score_notes(one, "pope")) == [f"fastv {words}"]
    assert notes(one, two) == [f"m: fastv {words}."]


@pytest.mark.parametrize("remark", [CONTEXT, CUT, "of a later version"])
@pytest.mark.parametrize(("count", "noted"), [(1, False), (2, True), (200, True)])
def test_remarks_are_noted_from_one_percent_of_the_rows(remark: str, count: int, noted: bool) -> None:
    one = run("none", {"pope": entry(remarks={remark: count})})
    words = REMARKS.get(remark, "have the remark 'of a later version'")
    shown = f"{count} of 200 rows ({count / 2:g} %)"
    assert list(score_notes(one, "pope")) == [f"{shown} {words}"] * noted
    assert notes(one) == [f"pope: rows {words}: {shown} in m none 1 ({one.identity})."] * noted
    assert all_remarks({"pope": [one.datasets["pope"]]}) == f"pope: {shown} {words}"


def test_unread_answers_come_from_the_score() -> None:
    one = run("none", {"pope": dataset(score(RIGHT, unparsed=50))})
    [note] = score_notes(one, "pope")
    assert note == f"50 of 200 rows (25 %) {REMARKS[UNREAD]}"
    assert list(score_notes(run("none", {"pope": dataset(rows=10)}), "pope")) == []


def test_a_note_names_the_runs_it_concerns_most() -> None:
    runs = [run("divprune", {"pope": entry(remarks={CUT: 10 * n})}, ratio=n / 10) for n in range(1, 6)]
    [note] = notes(*runs)
    assert "50 of 200 rows (25 %) in m divprune 0.5" in note
    assert note.index("0.5 (") < note.index("0.4 (") < note.index("0.3 (")
    assert note.endswith(" and 2 more.")
    assert "0.2 (" not in note


def test_seeds_of_one_row_are_counted_together() -> None:
    assert all_remarks({"pope": [entry(remarks={CUT: 1}), entry(remarks={CUT: 3})]}) == (
        f"pope: 4 of 400 rows (1 %) {REMARKS[CUT]}"
    )
    assert all_remarks({"pope": [entry()]}) is None


def test_the_leaderboard_notes_the_baseline_too_and_its_files_have_every_remark() -> None:
    none = run("none", {"pope": entry(remarks={CONTEXT: 100})})
    pruned = run("divprune", {"pope": entry(remarks={CUT: 1})})
    board = leaderboard([none, pruned])
    shown = board.only({pruned.identity})
    assert any(none.identity in note and REMARKS[CONTEXT] in note for note in shown.notes)
    assert not any(REMARKS[CUT] in note for note in board.notes)
    lines = {line["method"]: line["remarks"] for line in csv.DictReader(io.StringIO(board.csv()))}
    assert lines["divprune"] == f"pope: 1 of 200 rows (0.5 %) {REMARKS[CUT]}"
    assert "100 of 200 rows (50 %)" in lines["none"]
    assert lines["divprune"] in board.markdown()


def test_terminals_show_notes_in_place_of_the_column(capsys: pytest.CaptureFixture[str]) -> None:
    one = run("none", {"pope": entry(remarks={CUT: 100})})
    terminal_table.show(leaderboard([one]))
    shown = capsys.readouterr().out
    assert "remarks" not in shown
    assert shown.count(REMARKS[CUT]) == 1


@pytest.mark.parametrize(("dtype", "noted"), [("float32", False), ("bfloat16", True), ("float16", True)])
def test_batch_sizes_that_differ_are_noted_in_low_precision(dtype: str, noted: bool) -> None:
    one = run("none", {"pope": entry(batching={"8": 150, "4": 50})}, dtype=dtype)
    text = f"answers in {dtype} depend on the batch size, which differs"
    assert list(score_notes(one, "pope")) == [f"{text}: 150 rows at batch size 8, 50 rows at batch size 4"] * noted
    assert notes(one) == [f"pope: {text}: 4 and 8 in m none 1 ({one.identity})."] * noted
    assert all_remarks({"pope": [one.datasets["pope"]]}) == "pope: batch sizes 4, 8"


def test_runs_of_one_model_that_differ_in_batch_size_are_noted_once_for_all_their_benchmarks() -> None:
    def answered(method: str, batching: str, **fields: object) -> RunRecord:
        two = dict.fromkeys(("mme", "pope"), entry(batching={batching: 200}))
        return run(method, two, **{"dtype": "bfloat16"} | fields)  # type: ignore[arg-type]

    none, same = answered("none", "8"), answered("divprune", "8")
    shared, other = answered("fastv", "8 with --share-vision"), answered("vtw", "8", weights="of another model")
    assert notes(none, same) == []
    assert notes(none, same, answered("fastv", "1", weights="of another model")) == []
    [note] = notes(none, same, shared, other)
    assert note.startswith("mme, pope: answers in bfloat16 depend on the batch size, which differs: 8 in m none 1 (")
    assert f"; 8 with --share-vision in m fastv 0.5 ({shared.identity})." in note
    assert other.identity not in note


def test_rows_are_counted_by_the_size_of_full_batches() -> None:
    sizes = ["8"] * 9 + ["4"] * 2 + [None]
    assert batching(Prediction(index="0", prediction="", batching=size) for size in sizes) == {"8": 9, "4": 2}


def test_predictions_stored_before_there_were_remarks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pope.jsonl"
    path.write_text('{"index": "0", "prediction": "yes", "new_tokens": 2, "batch": 8}\n', encoding="utf-8")
    [row] = prediction_lines(path).read()
    assert (row.remarks, row.batching) == ([], None)
    assert count_remarks([row]) == batching([row]) == {}


def test_what_is_known_about_a_judge_is_shown_with_its_scores() -> None:
    entries = {name: dataset(score(RIGHT, judge="rule", judge_note="rule judge: so good")) for name in ("mia", "vista")}
    one = run("none", {**entries, "pope": entry()})
    assert list(score_notes(one, "mia")) == ["rule judge: so good"]
    assert list(score_notes(one, "pope")) == []
    assert notes(one) == ["mia, vista: rule judge: so good."]
    assert "mia, vista: rule judge: so good." in leaderboard([one]).notes
