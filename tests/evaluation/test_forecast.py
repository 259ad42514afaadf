"""Forecasts of time: by the nearest stored run of the model on the same kind of machine."""

from __future__ import annotations

from tests.helpers.records import dataset, run, timed
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.sweep import PlannedRun, forecast, pace, seconds_left
from uniprune.results.records import RunRecord


def stored(method: str, ratio: float, device: str = "cpu", **seconds_per_row: float | None) -> RunRecord:
    """A run with these times per row, a benchmark each; None for one that was not timed."""
    times = {name: None if seconds is None else timed(seconds) for name, seconds in seconds_per_row.items()}
    return run(method, {name: dataset(timing=timing) for name, timing in times.items()}, ratio, device=device)


RECORDS = [
    stored("a", 0.1, pope=1.0, mme=2.0),
    stored("a", 0.5, pope=3.0),
    stored("b", 0.2, pope=5.0, vqa=7.0),
    stored("b", 0.9, mme=11.0, pope=None),
]


def test_the_nearest_run_is_that_of_benchmark_then_method_then_ratio() -> None:
    assert pace("pope", "a", 0.1, RECORDS) == 1
    assert pace("pope", "a", 0.4, RECORDS) == 3
    assert pace("pope", "b", 0.9, RECORDS) == 5  # the nearer run of b has no times
    assert pace("mme", "a", 0.9, RECORDS) == 2  # the method counts before the ratio
    assert pace("vqa", "a", 0.1, RECORDS) == 7  # the benchmark before both
    assert pace("ocr", "b", 0.8, RECORDS) == 11  # a benchmark that was never run
    assert pace("pope", "c", 0.2, RECORDS) == 5
    assert pace("pope", "a", 0.1, [stored("a", 0.1, pope=None)]) is None


def test_seconds_add_up_over_benchmarks() -> None:
    assert seconds_left({"pope": 10, "mme": 3}, "a", 0.1, RECORDS) == 10 * 1 + 3 * 2
    assert seconds_left({"pope": 10, "mme": 0}, "a", 0.1, RECORDS) == 10
    assert seconds_left({}, "a", 0.1, []) == 0
    assert seconds_left({"pope": 0}, "a", 0.1, []) == 0
    assert seconds_left({"pope": 10, "mme": None}, "a", 0.1, RECORDS) is None
    assert seconds_left({"pope": 10}, "a", 0.1, []) is None


def test_runs_on_other_machines_give_no_forecast() -> None:
    records = [*RECORDS, stored("a", 0.2, device="cuda", pope=0.01)]
    item = PlannedRun(
        RunSpec("m", MethodSpec("none")), "label", setup=stored("a", 0.2).setup, rows={"pope": 12}, stored={"pope": 2}
    )
    assert forecast(item, records) == 10
    assert forecast(PlannedRun(item.cell, "label", rows={"pope": 12}), records) is None  # not known what it is
