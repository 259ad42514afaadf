"""A number has one value wherever it is printed: intervals of scores, and forecasts of time."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.helpers import records
from uniprune.cli.main import main
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.sweep import RunSettings, Sweep, forecast
from uniprune.reports.papers.compare import Compared, compare
from uniprune.reports.papers.cost import cost, read_assumptions
from uniprune.reports.papers.line import Printed
from uniprune.reports.papers.runs import StoredRuns
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.results.table import ScoreCell
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

ITEMS = 60
CHANCE = {"mini-mme": 0.85, "mini-pope": 0.95}


def run(spec: MethodSpec, limit: int | None = None, names: Iterable[str] = CHANCE, items: int = ITEMS) -> RunRecord:
    """A run that answers items about images, two per image, by chance."""
    datasets = {}
    for name in names:
        rng = np.random.default_rng([spec.seed, *f"{name} {spec.name}".encode()])
        right = rng.random(items) < CHANCE[name] * (1 if spec.name == "none" else 0.9)
        clusters = {str(i): str(i // 2) for i in range(items)}
        datasets[name] = records.dataset(score=records.score(right.astype(float), clusters=clusters), rows=items)
    method = spec.record(spec.pruner(), attends=[True] * 6)
    return records.run(method, datasets, spec.pruner().ratio, spec.seed, "tiny-llava", limit=limit)


SPECS = [MethodSpec("none"), *(MethodSpec("random-pre", 0.333, seed=seed) for seed in range(3))]


def printed(quantity: str, benchmark: str = "") -> Printed:
    texts = dict.fromkeys(("settings", "column", "spread", "erratum", "note"), "")
    return Printed(row="Random", model="tiny-llava", method="random-pre", ratio=0.333, benchmark=benchmark,
                   quantity=quantity, value="80", **texts)  # fmt: skip


LINES = [
    *(printed(quantity, name) for quantity in ("score", "relative %", "change %") for name in CHANCE),
    *(printed(quantity) for quantity in ("average", "average relative %")),
]


def joined(stored: list[RunRecord]) -> dict[tuple[str, str], Compared]:
    return {(one.line.quantity, one.line.benchmark): one for one in compare(LINES, StoredRuns(stored))}


def test_leaderboard_and_compare_write_the_same_intervals(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    for spec in SPECS:
        store.write(run(spec))
    board, table = tmp_path / "board.csv", tmp_path / "table.csv"
    output = ["--output", str(store.root)]
    assert main(["leaderboard", *output, "--csv", str(board)]) == 0
    assert main(["compare", "--paper", "uniprunebench-table1", "--mini", *output, "--csv", str(table)]) == 0
    [ours] = [line for line in csv.DictReader(board.open()) if line["method"] == "random-pre"]
    theirs = [line for line in csv.DictReader(table.open()) if line["method"] == "random-pre" and line["ours"]]
    assert ours["seed"] == "3 seeds"
    assert {line["benchmark"] for line in theirs if line["ratio"] == "0.333"} == {*CHANCE}
    for line in theirs:
        name = line["benchmark"]
        values = [line[column] for column in ("ours", "low", "high", "spread")]
        assert values == [ours[name + suffix] for suffix in ("", " low", " high", " std")]
        assert float(line["low"]) < float(line["high"])
        assert (line["runs"], line["rows"]) == ("3", str(ITEMS))


def test_averages_and_relatives_are_the_leaderboards_too() -> None:
    stored = [run(spec) for spec in SPECS]
    [row] = [row for row in leaderboard(stored).rows if row["method"] == "random-pre"]
    ours = {key: one.ours for key, one in joined(stored).items()}
    assert ours["average", ""] == row["average"]
    relative, cell = ours["average relative %", ""], row["relative %"]
    assert isinstance(cell, ScoreCell)
    assert relative is not None
    assert (relative.value, relative.interval) == (cell.value, cell.interval)
    one, change = ours["relative %", "mini-mme"], ours["change %", "mini-mme"]
    assert one is not None
    assert change is not None
    assert one.interval is not None
    assert change.interval == pytest.approx([end - 100 for end in one.interval])
    assert change.spread == pytest.approx(one.spread)


def test_a_number_is_inside_by_the_leaderboards_interval() -> None:
    stored = [run(spec) for spec in SPECS]
    one = joined(stored)["score", "mini-mme"]
    assert one.ours is not None
    assert one.ours.interval is not None
    low, high = one.ours.interval
    for value, inside in ((low, True), (high, True), (low - 0.1, False), (high + 0.1, False)):
        line = one.line.model_copy(update={"value": repr(value)})
        assert Compared(line, one.ours, one.sources).inside is inside


def test_a_row_without_all_its_benchmarks_has_no_average() -> None:
    stored = [run(spec) for spec in SPECS]
    lines = [*LINES, printed("score", "mini-ocrbench")]
    means = {one.line.quantity: one.ours for one in compare(lines, StoredRuns(stored)) if not one.line.benchmark}
    assert means["average"] is None
    assert means["average relative %"] is not None  # of what the paper prints as relative


def test_without_the_unpruned_run_there_are_scores_but_no_relatives() -> None:
    found = joined([run(spec) for spec in SPECS if spec.name != "none"])
    assert {key[0] for key, one in found.items() if one.ours} == {"score", "average"}
    assert found["relative %", "mini-mme"].sources == ()


def test_of_several_set_ups_the_one_with_most_rows_then_with_most_seeds_counts() -> None:
    spec, other = (MethodSpec("random-pre", 0.333, seed=seed) for seed in (0, 1))
    full, short = run(spec), [run(one, limit=20, items=20) for one in (spec, other)]
    assert (joined([*short, full])["score", "mini-mme"].rows, joined(short)["score", "mini-mme"].runs) == (ITEMS, 2)
    alone = run(MethodSpec("random-pre", 0.333, seed=5), limit=20, items=20).model_copy(
        update={"setup": short[0].setup.model_copy(update={"dtype": "float16"}), "identity": "x"}
    )
    found = joined([alone, *short])["score", "mini-mme"]
    assert (found.runs, found.rows) == (2, 20)


def test_done_is_a_benchmark_that_the_same_seed_has_scored() -> None:
    specs = [RunSpec("tiny-llava", MethodSpec("random-pre", 0.333, seed=seed), (*CHANCE,)) for seed in (0, 1)]
    left = cost(specs, StoredRuns([run(specs[0].choice, names=["mini-pope"])]), read_assumptions())
    assert (left.pairs, left.done) == (4, 1)


def interrupted(store: Store, record: RunRecord, rows: int) -> None:
    """Leave a run as an interrupt after some rows would."""
    [(name, entry)] = record.datasets.items()
    path = store.predictions(record.identity, name)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:rows]))
    entry = entry.model_copy(update={"score": None, "answered": rows})
    store.write(record.model_copy(update={"datasets": {name: entry}}))


def test_a_forecast_is_the_same_before_a_sweep_and_in_a_table(tmp_path: Path) -> None:
    """Of a run with nothing stored at a ratio and on a benchmark that were never run, and of an interrupted one."""
    settings = RunSettings(tmp_path / "results", tmp_path / "data", device="cpu", batch_size=4, judge="rule")
    sweep = Sweep(settings)
    choices = (MethodSpec("none"), MethodSpec("random-pre", 0.5), MethodSpec("divprune", 0.2))
    specs = [RunSpec("tiny-llava", choice, ("mini-pope",), None, "site", 4) for choice in choices]
    with RunProgress(12, Console(quiet=True)) as progress:
        assert not [one.failure for one in sweep.execute(sweep.plan(specs), progress) if one.failure]
    [record] = [one for one in sweep.store.records() if one.setup.method.name == "divprune"]
    interrupted(sweep.store, record, 3)
    stored = list(sweep.store.records())

    data = ("mini-pope", "mini-mme")
    left_open = ((MethodSpec("random-pre", 0.222), 40), (MethodSpec("divprune", 0.2), 4))
    open_ = [RunSpec("tiny-llava", choice, data, None, "site", limit) for choice, limit in left_open]
    for item, rows in zip(sweep.plan(open_), (80, 5), strict=True):
        left = cost([item.cell], StoredRuns(stored), read_assumptions())
        seconds = forecast(item, stored)
        assert seconds is not None
        assert seconds > 0
        assert left.seconds == seconds
        assert left.rows == left.measured == rows == sum(n or 0 for n in item.left.values())
        assert left.done == 0
