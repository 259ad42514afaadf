"""`analyse --power` and the dry run of a sweep: which differences rows can show, measured or assumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.records import dataset, run, tokens
from uniprune.cli.main import main
from uniprune.cli.planned_power import planned_power
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.plan import PlannedRun
from uniprune.reports.findings import PowerAnalysis, Study, power_lines
from uniprune.results.records import RunRecord
from uniprune.results.statistics import detectable_by
from uniprune.results.store import Store


def records(differ: float = 0.1, rows: int = 400, weights: str = "w") -> list[RunRecord]:
    """Two methods that differ on a share of the rows, and one of another budget."""
    base = np.arange(rows) % 3 > 0
    other = base ^ (np.arange(rows) % round(1 / differ) == 0)
    answers = {"a": (base, 16.0), "b": (other, 16.0), "c": (base, 58.0)}
    return [
        run(name, {"x": dataset(list(right * 1.0), ledger=tokens(average))}, weights=weights)
        for name, (right, average) in answers.items()
    ]


def test_the_spread_is_that_of_stored_pairs_of_equal_budget() -> None:
    power = PowerAnalysis(Study(records())).on("x", 1600, 28)
    assert (power.rows, power.pairs, power.basis) == (1600, 28, "10 % of rows differ in 1 stored pair")
    assert power.one == pytest.approx(detectable_by(1600, 0.1), rel=0.03)
    assert power.all == pytest.approx(detectable_by(1600, 0.1, 0.05 / 28), rel=0.03)
    assert str(power).startswith("1600 rows show 2.2 points between two methods, 3.1 as one of 28 pairs (10 % of")


def test_other_models_serve_where_none_of_the_model_is_stored_and_are_named() -> None:
    analysis = PowerAnalysis(Study([*records(), *records(0.25, weights="v")]))
    assert analysis.on("x", 400, 1, "w").basis == "10 % of rows differ in 1 stored pair"
    assert analysis.on("x", 400, 1, "u").basis == "18 (10 to 25) % of rows differ in 2 stored pairs of other models"


def test_nothing_is_known_of_methods_that_answer_alike() -> None:
    same = [one.model_copy(update={"datasets": records()[0].datasets}) for one in records()[:2]]
    power = PowerAnalysis(Study(same)).on("x", 400, 1)
    assert (power.one, power.basis) == (None, "0 % of rows differ in 1 stored pair, 1 without a test")
    assert str(power).startswith("400 rows show no difference")


def test_without_stored_pairs_the_discordance_is_assumed_and_said() -> None:
    assert power_lines(None, [1000]) == ["1000 rows show 4.0 points between two methods (assumed: 20 % of rows differ)"]
    assert power_lines(None, [4], 0.5) == [
        "4 rows show no difference between two methods (assumed: 50 % of rows differ)"
    ]
    assert "assumed: 30 %" in power_lines(Study(records()), [], 0.3)[0]
    assert [line.split()[1] for line in power_lines(Study(records()), [100, 400])] == ["100", "400"]


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["analyse", "--output", str(tmp_path / "runs")]
    assert main([*output, "--power", "1000", "--discordance", "10"]) == 0
    assert "1000 rows show 2.8 points between two methods (assumed: 10 % of rows differ)" in capsys.readouterr().out
    assert main([*output, "--power"]) == 2
    assert "give --power the rows" in capsys.readouterr().err
    for wrong in (["--power", "0"], ["--power", "9", "--discordance", "0"], ["--discordance", "9"], ["--margin", "0"]):
        assert main([*output, *wrong]) == 2
    for record in records():
        Store(tmp_path / "runs").write(record)
    capsys.readouterr()
    assert main([*output, "--power", "1600"]) == 0
    told = capsys.readouterr().out
    assert "x: 400 rows show 4.4 points" in told
    assert "x: 1600 rows show 2.2 points" in told


def planned(method: str, rows: int | None, seed: int = 0, ratio: float = 0.5) -> PlannedRun:
    return PlannedRun(RunSpec("m", MethodSpec(method, ratio, seed=seed)), "label", rows={"x": rows})


def test_a_plan_counts_pairs_of_methods_at_one_ratio() -> None:
    """Three methods are three pairs, whatever their seeds; the un-pruned model is none of them."""
    items = [planned("none", 900), *(planned(name, 900) for name in ("a", "b", "c")), planned("c", 900, seed=1)]
    [_, line] = planned_power([*items, planned("a", 900, ratio=0.2)], [])
    one, every = (detectable_by(900, 0.2, level) for level in (0.05, 0.05 / 3))
    assert line == (
        f"  m, x: 900 rows show {one:.1f} points between two methods, {every:.1f} as one of 3 pairs "
        "(assumed: 20 % of rows differ)"
    )
    assert "10 % of rows differ in 1 stored pair" in planned_power(items, records())[1]
    assert planned_power([planned("a", None), planned("b", None)], [])[1] == "  m, x: unknown rows"
    assert planned_power([planned("none", 900), planned("a", 900)], []) == []
