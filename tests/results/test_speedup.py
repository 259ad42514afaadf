"""Net speed-up of stored runs: prefill and method against the un-pruned prefill, on equal rows and machines."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.records import dataset, run, timed, tokens
from uniprune.results.leaderboard import Leaderboard, leaderboard
from uniprune.results.measurements import Flops, Quantity, Timing
from uniprune.results.records import DatasetRecord, Environment

HERE = Environment(versions={}, git=None, device="H200", threads=16)


def entry(prefill: float, method: float, rows: int = 10, llm: float | None = None, **fields: Any) -> DatasetRecord:
    """Return a benchmark whose prefill and method took so many milliseconds per row, and so many FLOPs."""
    spans = {"prefill": Quantity(median=prefill, iqr=0, total=1), "method": Quantity(median=method, iqr=0, total=1)}
    timing = Timing(**{**timed(1, rows).model_dump(), **spans})
    ledger = None if llm is None else tokens(4.0, flops=Flops(vision=1, projector=1, llm=llm))
    values: dict[str, Any] = {"timing": timing, "ledger": ledger, "environments": [HERE], "batching": {"8": rows}}
    return dataset([1] * rows, **values | fields)


def board(
    pruned: dict[str, DatasetRecord], unpruned: dict[str, DatasetRecord] | None
) -> tuple[dict[str, Any], Leaderboard]:
    """Return the leaderboard's row of a pruned run, and the leaderboard."""
    made = leaderboard([run("divprune", pruned), *([] if unpruned is None else [run("none", unpruned)])])
    (row,) = [row for row in made.rows if row["method"] == "divprune"]
    return dict(row), made


def test_it_is_the_unpruned_prefill_over_prefill_and_method() -> None:
    row, made = board({"a": entry(20, 5, llm=2e9)}, {"a": entry(100, 0.1, llm=12e9)})
    assert row["net speed-up"] == pytest.approx(4)
    assert row["net ceiling"] == pytest.approx(6)
    assert row["of ceiling %"] == pytest.approx(100 * 4 / 6)
    assert [row["net speed-up"] for row in made.rows if row["method"] == "none"] == [None]
    assert any(note.startswith("net speed-up: un-pruned prefill") for note in made.notes)


def test_benchmarks_count_by_their_rows() -> None:
    pruned = {"a": entry(20, 5, llm=1e9), "b": entry(10, 10, rows=30, llm=2e9)}
    row, _ = board(pruned, {"a": entry(100, 0, llm=6e9), "b": entry(60, 0, rows=30, llm=4e9)})
    assert row["net speed-up"] == pytest.approx((10 * 100 + 30 * 60) / (10 * 25 + 30 * 20))
    assert row["net ceiling"] == pytest.approx((10 * 6 + 30 * 4) / (10 * 1 + 30 * 2))


def test_a_tower_that_had_less_to_do_counts() -> None:
    def counted(vision: float, llm: float, spans: tuple[float, float, float], method: float) -> DatasetRecord:
        ledger = tokens(4.0, flops=Flops(vision=vision, projector=1e9, llm=llm))
        made = entry(spans[2], method, ledger=ledger)
        assert made.timing is not None
        times = {name: Quantity(median=spans[i], iqr=0, total=1) for i, name in enumerate(("vision", "projector"))}
        return made.model_copy(update={"timing": made.timing.model_copy(update=times)})

    unpruned = counted(9e9, 10e9, (50, 10, 100), 0.1)
    row, made = board({"a": counted(4e9, 5e9, (20, 10, 40), 10)}, {"a": unpruned})
    assert row["net speed-up"] == pytest.approx(160 / 80)
    assert row["net ceiling"] == pytest.approx(20 / 10)
    assert any("both include tower and projector" in note for note in made.notes)
    row, _ = board({"a": counted(9e9, 5e9, (50, 10, 40), 10)}, {"a": unpruned})
    assert row["net speed-up"] == pytest.approx(100 / 50)
    assert row["net ceiling"] == pytest.approx(10 / 5)


@pytest.mark.parametrize(
    "other",
    [
        {"environments": [HERE.model_copy(update={"device": "A100"})]},
        {"environments": [HERE.model_copy(update={"threads": 1})]},
        {"environments": [HERE, HERE.model_copy(update={"device": "A100"})]},
        {"batching": {"4": 10}},
    ],
)
def test_times_of_another_machine_or_batch_do_not_compare(other: dict[str, Any]) -> None:
    row, made = board({"a": entry(20, 5, **other)}, {"a": entry(100, 0.1)})
    assert row["net speed-up"] is None
    assert [note for note in made.notes if "net speed-up" in note] == [
        "No net speed-up of m divprune 0.5: the un-pruned model was timed on another machine or in other batches."
    ]


def test_it_is_absent_without_times_flops_or_baseline() -> None:
    for pruned, unpruned in (
        ({"a": entry(20, 5)}, None),
        ({"a": entry(20, 5)}, {"b": entry(100, 0)}),
        ({"a": entry(20, 5)}, {"a": entry(100, 0, data="other rows")}),
        ({"a": entry(20, 5, timing=None)}, {"a": entry(100, 0)}),
        ({"a": entry(20, 5)}, {"a": entry(100, 0, timing=None)}),
    ):
        row, made = board(pruned, unpruned)
        assert (row["net speed-up"], row["of ceiling %"]) == (None, None)
        assert not [note for note in made.notes if "net speed-up" in note]
    row, _ = board({"a": entry(20, 5)}, {"a": entry(100, 0)})
    assert (row["net speed-up"], row["net ceiling"], row["of ceiling %"]) == (4, None, None)
