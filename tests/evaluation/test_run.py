"""Runs on untrained tiny models: predictions, resuming, budgets, records, leaderboards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.helpers.paths import PLUGINS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions, Dataset, Score
from uniprune.evaluation.dataset_run import uncertainty
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.evaluation.runner import Runner
from uniprune.modeling.loading import LoadedModel
from uniprune.registry import BENCHMARKS, load_plugin
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.results.table import ScoreCell
from uniprune.utils.console import RunProgress
from uniprune.utils.memory import is_out_of_memory

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module", autouse=True)
def plugins() -> None:
    for file in PLUGINS.glob("*.py"):
        load_plugin(file)


def dataset(name: str = "small") -> Dataset:
    built: Dataset = BENCHMARKS.get(name)(DataOptions(Path("unused")))
    return built


def evaluate(
    loaded: LoadedModel, output: Path, method: str = "none", data: str = "small", **words: object
) -> RunRecord:
    options = {k: words.pop(k) for k in ("limit", "batch_size", "protocol", "max_new_tokens") if k in words}
    run = Run(loaded, MethodSpec(method, **words), RunOptions(**options))  # type: ignore[arg-type]
    with RunProgress(12, Console(quiet=True)) as progress:
        return run.evaluate([dataset(data)], Store(output), progress)


def lines(output: Path, record: RunRecord, data: str = "small") -> list[dict[str, object]]:
    text = (output / record.identity / f"{data}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def forwards(loaded: LoadedModel) -> Iterator[list[int]]:
    """One entry per forward of the model while the test runs."""
    calls: list[int] = []
    handle = loaded.model.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def test_a_run_leaves_predictions_record_and_scores(loaded: LoadedModel, tmp_path: Path) -> None:
    record = evaluate(loaded, tmp_path, "divprune", ratio=0.111)
    rows = lines(tmp_path, record)
    assert [row["index"] for row in rows] == [str(i) for i in range(12)]
    assert all(row["visual_tokens"] == [16] * 6 for row in rows)
    entry = record.datasets["small"]
    assert (entry.rows, entry.whole, entry.answered, entry.faulty, entry.suite) == (12, 12, 12, {}, "small")
    assert entry.score is not None
    assert entry.score.rows == 12
    assert entry.ledger is not None
    assert (entry.ledger.average, entry.ledger.requested, entry.ledger.flagged) == (16, 16, False)
    assert entry.timing is not None
    parts = ("vision", "projector", "method", "prefill", "decode")
    assert sum(getattr(entry.timing, part).total for part in parts) <= entry.timing.total.total * 1.01
    assert entry.timing.ttft is not None
    assert entry.timing.tpot is not None
    # One batch of 8 rows and one of 4: a row waits for its whole batch.
    assert entry.timing.ttft.median > 3 * (entry.timing.prefill.median + entry.timing.vision.median)
    assert entry.timing.tpot.median < entry.timing.ttft.median
    assert record.datasets["small"].environments[0].versions["torch"] == torch.__version__
    assert Store(tmp_path).read(record.identity) == record


def test_a_record_keeps_the_days_on_which_predictions_were_stored(loaded: LoadedModel, tmp_path: Path) -> None:
    record = evaluate(loaded, tmp_path, "divprune", ratio=0.111)
    [today] = record.datasets["small"].days
    store = Store(tmp_path)
    old = record.datasets["small"].model_copy(update={"days": ["2020-01-31"]})
    store.write(record.model_copy(update={"datasets": {"small": old}}))
    assert evaluate(loaded, tmp_path, "divprune", ratio=0.111).datasets["small"].days == ["2020-01-31"]
    path = store.predictions(record.identity, "small")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    days = evaluate(loaded, tmp_path, "divprune", ratio=0.111).datasets["small"].days
    assert days[0] == "2020-01-31"
    assert today <= days[1]


def test_answers_do_not_depend_on_batch_size_or_on_where_a_run_stopped(loaded: LoadedModel, tmp_path: Path) -> None:
    one = evaluate(loaded, tmp_path / "1", "random-pre", ratio=0.25, batch_size=1)
    five = evaluate(loaded, tmp_path / "5", "random-pre", ratio=0.25, batch_size=5)
    assert one.identity == five.identity
    expected = {row["index"]: row["prediction"] for row in lines(tmp_path / "1", one)}
    assert {row["index"]: row["prediction"] for row in lines(tmp_path / "5", five)} == expected

    path = tmp_path / "5" / five.identity / "small.jsonl"
    stored = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(stored[:7]) + stored[7][:40])
    again = evaluate(loaded, tmp_path / "5", "random-pre", ratio=0.25, batch_size=3)
    rows = lines(tmp_path / "5", again)
    assert path.read_bytes().splitlines(keepends=True)[:7] == stored[:7]
    assert [row["index"] for row in rows] == [str(i) for i in range(12)]
    assert {row["index"]: row["prediction"] for row in rows} == expected


def test_a_complete_run_asks_nothing_again(loaded: LoadedModel, tmp_path: Path, forwards: list[int]) -> None:
    first = evaluate(loaded, tmp_path, "fastv", ratio=0.5)
    assert forwards
    forwards.clear()
    assert evaluate(loaded, tmp_path, "fastv", ratio=0.5).datasets == first.datasets
    assert not forwards


def test_different_questions_are_different_runs(loaded: LoadedModel, tmp_path: Path) -> None:
    runs = [
        evaluate(loaded, tmp_path, "random-pre", ratio=0.5, limit=2),
        evaluate(loaded, tmp_path, "random-pre", ratio=0.5, limit=3),
        evaluate(loaded, tmp_path, "random-pre", ratio=0.5, limit=2, seed=1),
        evaluate(loaded, tmp_path, "random-pre", ratio=0.5, limit=2, max_new_tokens=1),
    ]
    assert len({run.identity for run in runs}) == 4
    assert {row["new_tokens"] for row in lines(tmp_path, runs[3])} == {1}


def test_changed_data_is_refused_not_mixed(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = evaluate(loaded, tmp_path)
    before = (tmp_path / record.identity / "small.jsonl").read_bytes()
    monkeypatch.setattr(type(dataset()), "fingerprint", "small-2")
    with pytest.raises(UserError, match=r"data file changed .*small-1 then, small-2 now.*--output"):
        evaluate(loaded, tmp_path)
    assert (tmp_path / record.identity / "small.jsonl").read_bytes() == before


def test_damaged_rows_are_named_and_counted_and_the_run_goes_on(loaded: LoadedModel, tmp_path: Path) -> None:
    record = evaluate(loaded, tmp_path, data="small-broken")
    entry = record.datasets["small-broken"]
    assert entry.score is not None
    assert set(entry.faulty) == {"3", "12"}
    assert entry.faulty["12"] == "the image cell is empty"
    assert "truncated" in entry.faulty["3"]
    assert (entry.rows, entry.answered, entry.refused, entry.left_out) == (12, 11, 1, 1)
    assert (entry.score.rows, set(entry.score.per_item)) == (11, {str(i) for i in range(12)} - {"3"})
    board = leaderboard([record])
    assert any("small-broken 2 of 13 rows" in note for note in board.notes)
    assert (str(board.rows[0]["rows"]), board.rows[0]["left out"]) == ("11", 2)


@pytest.mark.parametrize(("method", "average"), [("fastv", 0.5), ("divprune+fastv", 0.3)])
def test_average_protocol_measures_what_was_asked(
    method: str, average: float, loaded: LoadedModel, tmp_path: Path
) -> None:
    record = evaluate(loaded, tmp_path, method, ratio=average, protocol="average", limit=2)
    kept = record.datasets["small"].ledger
    assert kept is not None
    assert kept.requested == pytest.approx(144 * average)
    assert kept.average == pytest.approx(144 * average, abs=1)
    assert not kept.flagged


def test_a_layer_the_model_lacks_is_refused_before_anything_runs(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layer 6 is outside the model's decoder layers 0\.\.5"):
        evaluate(loaded, tmp_path, "fastv", ratio=0.5, layer=6)
    assert not list(tmp_path.iterdir())


def test_a_method_that_needs_text_says_so_where_there_is_none(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Wordy"):
        evaluate(loaded, tmp_path, "wordy", data="silent", ratio=0.5)


@pytest.mark.parametrize("field", ["limit", "batch_size", "max_new_tokens"])
def test_counts_must_be_positive(field: str) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        RunOptions(**{field: 0})  # type: ignore[arg-type]


def test_too_large_batches_are_halved_until_they_fit(loaded: LoadedModel) -> None:
    def refuse_more_than_two(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if len(kwargs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    requests = dataset().requests(5)
    with Runner(loaded, MethodSpec("none").pruner(), batch_size=4) as runner:
        handle = loaded.model.register_forward_pre_hook(refuse_more_than_two, with_kwargs=True)
        try:
            batches = list(runner.predictions(requests))
        finally:
            handle.remove()
        assert runner.batch_size == 2
        assert sorted(answer.index for answers in batches for answer in answers) == ["0", "1", "2", "3", "4"]
        assert [[answer.batch for answer in answers] for answers in batches] == [[2, 2], [2, 2], [1]]


def test_one_row_too_large_says_what_to_do(loaded: LoadedModel) -> None:
    def refuse(module: object, args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with Runner(loaded, MethodSpec("none").pruner(), batch_size=1) as runner:
        handle = loaded.model.register_forward_pre_hook(refuse)
        try:
            with pytest.raises(UserError, match=r"row 0 alone does not fit .*--dtype"):
                list(runner.predictions(dataset().requests(1)))
        finally:
            handle.remove()
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_the_model_is_left_as_it_was(loaded: LoadedModel, tmp_path: Path) -> None:
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in loaded.model.modules())

    before = hooks()
    evaluate(loaded, tmp_path, "fastv", ratio=0.5, limit=1)
    assert hooks() == before


def test_leaderboard_compares_with_vanilla_of_the_same_rows_only(loaded: LoadedModel, tmp_path: Path) -> None:
    full = evaluate(loaded, tmp_path)
    part = evaluate(loaded, tmp_path, limit=6)
    pruned = evaluate(loaded, tmp_path, "divprune", ratio=0.5)
    alone = evaluate(loaded, tmp_path, "divprune", ratio=0.5, limit=4)
    rows = {row["identity"]: row for row in leaderboard([full, part, pruned, alone]).rows}
    scores = {r.identity: r.datasets["small"].score.value for r in (full, pruned)}  # type: ignore[union-attr]
    assert rows[full.identity]["relative %"] == ScoreCell(100)
    relative = rows[pruned.identity]["relative %"]
    assert isinstance(relative, ScoreCell)
    assert relative.value == pytest.approx(100 * scores[pruned.identity] / scores[full.identity])
    assert rows[alone.identity]["relative %"] is None
    assert "limit=6" in str(rows[part.identity]["settings"])
    assert (str(rows[full.identity]["rows"]), str(rows[part.identity]["rows"])) == ("12", "6 of 12")


def test_leaderboard_gives_no_average_over_fewer_benchmarks(loaded: LoadedModel, tmp_path: Path) -> None:
    evaluate(loaded, tmp_path)
    both = evaluate(loaded, tmp_path, data="small-broken")
    some = evaluate(loaded, tmp_path, "divprune", ratio=0.5)
    board = leaderboard(list(Store(tmp_path).records()))
    rows = {row["identity"]: row for row in board.rows}
    assert [set(record.datasets) for record in Store(tmp_path).records() if record.identity == both.identity] == [
        {"small", "small-broken"}
    ]
    assert rows[both.identity]["average"] is not None
    assert rows[some.identity]["average"] is None
    assert any(note.startswith("No average") for note in board.notes)
    for content in (board.csv(), board.markdown()):
        assert some.identity in content


def test_an_interval_that_is_not_of_the_headline_says_so() -> None:
    credits = {str(i): float(i < 30) for i in range(40)}
    plain = uncertainty(Score(75, "accuracy", 40, per_item=credits), "x")
    other = uncertainty(Score(60, "something else", 40, per_item=credits, parts={"wrong": {"0": (1, 1)}}), "x")
    f1 = uncertainty(Score(60, "F1", 40, per_item=credits, parts={"F1": {str(i): (0.6, 1) for i in range(40)}}), "x")
    assert "interval_of" not in plain
    assert plain["interval"] == other["interval"]
    assert (other["interval_of"], other["parts"]) == ("mean credit", {})
    others = 1 - 0.025 ** (1 / 40)  # the exact bound on rows that differ, where forty are alike
    assert f1["interval"] == pytest.approx((60 * (1 - others), 60 * (1 - others) + 100 * others))
    assert uncertainty(Score(60, "no items", 40), "x")["interval"] is None
