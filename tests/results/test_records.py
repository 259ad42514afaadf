"""Run records, their identity, and the files answers are kept in."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from uniprune.errors import UserError
from uniprune.results.aggregate import ledger, timing
from uniprune.results.measurements import Flops, TokenLedger
from uniprune.results.predictions import Prediction, Predictions, part, stored_rows
from uniprune.results.records import (
    DatasetRecord,
    Environment,
    MethodRecord,
    ModelRecord,
    RunRecord,
    ScoreRecord,
    Setup,
)
from uniprune.results.store import Store

METHOD = MethodRecord(name="m", kind="pre-llm", passed={}, resolved=[{"layer": 0}], stages=[(0, 0.5)], code="c0de")
SETUP = Setup(
    weights="w", processor={"class": "P"}, method=METHOD, ratio=0.5, protocol="site", seed=0, max_new_tokens=None,
    limit=None, dtype="float32", attention="sdpa", device="cpu",
)  # fmt: skip
ENTRY = DatasetRecord(ability="a", suite="s", data="d", prompts="p", rows=2)


def record(setup: Setup = SETUP) -> RunRecord:
    model = ModelRecord(name="n", source="f", family="llava", layers=6)
    return RunRecord(identity=setup.identity(), model=model, setup=setup)


def environment(number: int = 0) -> Environment:
    return Environment(versions={"torch": str(number)}, git=None, device="cpu", threads=1)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "other"}, {"processor": {"class": "P", "size": 1}}, {"ratio": 0.25}, {"protocol": "average"},
        {"seed": 1}, {"max_new_tokens": 8}, {"limit": 5}, {"dtype": "float16"}, {"attention": "eager"},
        {"device": "cuda"}, {"method": METHOD.model_copy(update={"code": "edited"})},
        {"method": METHOD.model_copy(update={"resolved": [{"layer": 2}]})},
        {"method": METHOD.model_copy(update={"stages": [(2, 0.5)]})},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_identity_follows_everything_that_determines_answers(change: dict[str, object]) -> None:
    assert SETUP.model_copy(update=change).identity() != SETUP.identity()


def test_identity_is_stable_and_independent_of_field_order() -> None:
    again = Setup.model_validate(dict(reversed(SETUP.model_dump().items())))
    # A new value here means that no stored run can be resumed any more: never by accident.
    assert again.identity() == SETUP.identity() == "ee554955a41cdae7"


def test_record_survives_writing_and_reading(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    written = store.update(record(), "pope", ENTRY, environment())
    assert store.read(written.identity) == written
    assert list(store.records()) == [written]
    assert [p.name for p in store.folder(written.identity).glob(".record*")] == []


def test_updates_keep_what_others_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.update(record(), "a", ENTRY, environment(0))
    store.update(record(), "b", ENTRY, environment(0))
    last = store.update(record(), "a", ENTRY.model_copy(update={"answered": 2}), environment(1))
    stored = store.read(last.identity)
    assert stored is not None
    assert {name: entry.answered for name, entry in stored.datasets.items()} == {"a": 2, "b": 0}
    assert [e.versions["torch"] for e in stored.datasets["a"].environments] == ["0", "1"]
    assert [e.versions["torch"] for e in stored.datasets["b"].environments] == ["0"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 3}', '{"identity": "abc"}', '{"format": 3, "datasets": {}}']
)
def test_a_damaged_record_is_named_with_the_remedy(content: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.folder("abc") / "record.json").write_text(content)
    with pytest.raises(UserError, match=r"record\.json is not a run record .*move it away"):
        list(store.records())


@pytest.mark.parametrize("found", [1, 2, 99, "x"])
def test_a_record_of_another_format_is_named_with_both_formats_and_the_remedy(found: object, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record())
    path = store.folder(record().identity) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": found}))
    remedy = r"reads format 3\. Run again into another --output, or move that file away"
    expected = rf"{re.escape(str(path))} is a record of format {found!r}, .*{remedy}"
    with pytest.raises(UserError, match=expected):
        store.read(record().identity)
    with pytest.raises(UserError, match=expected):
        store.update(record(), "pope", ENTRY)
    path.unlink()  # moved away
    assert store.read(record().identity) is None


def test_a_folder_that_cannot_be_made_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*--output"):
        Store(tmp_path / "file").folder("abc")


def test_answers_come_back_and_a_cut_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with Predictions(path) as stored:
        stored.append([Prediction(index="0", prediction="a\nb\u2028c"), Prediction(index="1", prediction="")])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"index": "2", "predic')
    with Predictions(path) as stored:
        assert {i: a.prediction for i, a in stored.answers.items()} == {"0": "a\nb\u2028c", "1": ""}
        stored.append([Prediction(index="2", prediction="x")])
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == ["0", "1", "2"]


def test_parts_of_other_processes_are_moved_into_the_file_each_row_once(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with Predictions(path) as stored:
        stored.append([Prediction(index="0", prediction="main")])
    for rank, rows in ((1, "01"), (2, "12")):
        with Predictions(part(path, rank)) as stored:
            stored.append(Prediction(index=index, prediction=f"part {rank}") for index in rows)
    assert stored_rows(path) == 5
    with Predictions(path) as stored:
        stored.take_in()
        assert {i: a.prediction for i, a in stored.answers.items()} == {"0": "main", "1": "part 1", "2": "part 2"}
    assert [json.loads(line)["index"] for line in path.read_text().splitlines()] == ["0", "1", "2"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["d.jsonl", "d.lock"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"index": "0", "prediction": "a"}\ngarbage\n{"index": "1", "prediction": "b"}\n')
    with pytest.raises(UserError, match=r"d\.jsonl line 2 .*delete that line"), Predictions(path):
        pass
    with path.open("w") as file:  # the lock was given back
        file.write("")
    with Predictions(path):
        pass


def _hold(path: Path, ready: object, release: object) -> None:
    with Predictions(path) as stored:
        ready.set()  # type: ignore[attr-defined]
        release.wait(120)  # type: ignore[attr-defined]
        stored.append([Prediction(index="0", prediction="theirs")])


def test_a_second_process_waits_and_then_sees_the_answers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    path = tmp_path / "d.jsonl"
    other = context.Process(target=_hold, args=(path, ready, release))
    other.start()
    assert ready.wait(120)
    waited: list[Path] = []

    def waiting(which: Path) -> None:
        waited.append(which)
        release.set()

    with Predictions(path, waiting) as stored:
        assert stored.answers["0"].prediction == "theirs"
    other.join(120)
    assert waited == [path]


def answer(index: int, tokens: list[int], requested: float, seconds: float = 0.01) -> Prediction:
    spans = dict.fromkeys(("vision", "projector", "method", "prefill", "decode", "total"), seconds)
    return Prediction(
        index=str(index), prediction="", spans=spans, new_tokens=2, visual_tokens=tokens, requested=requested
    )


def test_ledger_flags_a_budget_missed_by_more_than_one_token() -> None:
    fine = [answer(0, [16, 16], 16.0), answer(1, [17, 17], 16.0)]
    kept = ledger(fine)
    assert kept is not None
    assert (kept.layers, kept.average, kept.requested, kept.flagged) == ([16.5, 16.5], 16.5, 16.0, False)
    missed = ledger([*fine, answer(2, [20, 18], 16.0)])
    assert missed is not None
    assert missed.flagged
    assert ledger([Prediction(index="0", prediction="", error="damaged")]) is None
    for layers, flagged in (([17, 17], False), ([15, 15], False), ([18, 17], True), ([15, 14], True)):
        off = ledger([*fine, answer(2, layers, 16.0)])
        assert off is not None
        assert off.flagged is flagged


def test_timing_is_medians_of_milliseconds_and_totals_of_seconds() -> None:
    measured = timing([answer(i, [1], 1.0, seconds) for i, seconds in enumerate((0.01, 0.02, 0.06))])
    assert measured is not None
    assert (measured.total.median, measured.rows, measured.new_tokens) == (pytest.approx(20), 3, 2)
    assert measured.total.total == pytest.approx(0.09)
    assert measured.total.iqr == pytest.approx(25)


def test_waiting_times_are_the_batchs_and_may_be_missing() -> None:
    waited = [
        answer(i, [1], 1.0).model_copy(update={"ttft": ttft, "tpot": tpot, "peak_bytes": 2**20 * (i + 1)})
        for i, (ttft, tpot) in enumerate([(0.1, None), (0.3, 0.02), (0.2, 0.04)])
    ]
    measured = timing(waited)
    assert measured is not None
    assert measured.ttft is not None
    assert measured.tpot is not None
    assert (measured.ttft.median, measured.tpot.median) == (pytest.approx(200), pytest.approx(30))
    assert measured.peak_mib == 3
    older = timing([answer(0, [1], 1.0)])
    assert older is not None
    assert (older.ttft, older.tpot, older.peak_mib) == (None, None, None)


def test_ledger_averages_operations_and_bytes_and_reads_older_answers() -> None:
    costs = {"initial": 20, "text_tokens": 6, "kv_bytes": 100, "flops": {"vision": 1, "projector": 2, "llm": 3}}
    rows = [answer(0, [16], 16.0).model_copy(update=costs | {"flops": Flops(**costs["flops"])})]  # type: ignore[arg-type]
    rows.append(rows[0].model_copy(update={"kv_bytes": 300, "flops": Flops(vision=1, projector=2, llm=5)}))
    kept = ledger(rows)
    assert kept is not None
    assert kept.flops is not None
    assert (kept.initial, kept.text, kept.kv_bytes, kept.flops.llm, kept.flops.total) == (20, 6, 200, 4, 7)
    mixed = ledger([*rows, answer(2, [16], 16.0)])
    assert mixed is not None
    assert (mixed.flops, mixed.kv_bytes, mixed.average) == (None, None, 16)
    written = kept.model_dump_json(include={"layers", "average", "requested", "flagged"})
    assert not TokenLedger.model_validate_json(written).adaptive


@pytest.mark.parametrize(
    ("details", "place"), [({"mean": float("nan")}, "details.mean is nan"), ({"rows": [float("inf")]}, "rows.0 is inf")]
)
def test_a_number_that_is_not_finite_is_neither_written_nor_read(
    details: dict[str, object], place: str, tmp_path: Path
) -> None:
    store, name = Store(tmp_path), record().identity
    score = ScoreRecord(
        value=50.0, metric="m", judge="exact", rows=2, unparsed=0, interval=None, per_item={}, details={}
    )  # fmt: skip
    store.update(record(), "b", ENTRY)
    before = (path := tmp_path / name / "b.record.json").read_bytes()
    bad = ENTRY.model_copy(update={"score": score.model_copy(update={"details": details})})
    with pytest.raises(UserError, match=f"b.record.json is left as it was: score.*{place}"):
        store.update(record(), "b", bad)
    assert path.read_bytes() == before
    for file, old in (("record.json", '"ratio": 0.5'), ("b.record.json", '"size": 0')):
        whole = (path := tmp_path / name / file).read_text()
        path.write_text(whole.replace(old, old.split(":")[0] + ": NaN"))
        with pytest.raises(UserError, match=rf"{file} is not a run record \(.*(ratio|size) is nan"):
            store.read(name)
        path.write_text(whole)


@pytest.mark.parametrize(
    "change", [{"value": float("nan")}, {"per_item": {"1": float("inf")}}, {"interval": (0.0, float("nan"))}]
)
def test_a_record_holds_finite_numbers_only(change: dict[str, object]) -> None:
    fields = {"value": 50.0, "metric": "m", "judge": "exact", "rows": 2, "unparsed": 0, "interval": None}
    with pytest.raises(ValidationError, match="finite number"):
        ScoreRecord.model_validate(fields | {"per_item": {}, "details": {}} | change)
