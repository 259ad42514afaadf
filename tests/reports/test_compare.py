"""`compare` on runs of the tiny models: every paper's sweep, scaled down, joined with the printed numbers."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
from rich.console import Console

from tests.helpers.paper_tables import TRANSCRIBED
from uniprune.cli.main import main
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.dataset import DataOptions
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.modeling.catalog import find_model
from uniprune.modeling.loading import load, place
from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.compare import Compared, compare
from uniprune.reports.papers.cost import cost, read_assumptions
from uniprune.reports.papers.mini import read_stand_ins
from uniprune.reports.papers.report import conditions
from uniprune.reports.papers.runs import StoredRuns
from uniprune.reports.papers.tables import read_table
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.results.table import ScoreCell
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

ROWS = 2


def some_cells() -> Iterator[RunSpec]:
    """First and last run of every block of every table, two seeds, on the first and last of its benchmarks."""
    for name in TRANSCRIBED:
        for block in read_stand_ins().sweep(read_table(name).sweep).runs:
            cells = list(block.cells())
            assert block.data is not None
            data = tuple(dict.fromkeys((block.data[0], block.data[-1])))
            for cell in (cells[0], *cells[1:2] * (len(block.seed) > 1), cells[-1]):
                yield RunSpec(cell.model, cell.choice, data, None, cell.protocol, ROWS)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, mini_data: Path) -> Path:
    """The runs of `some_cells`, asked and scored."""
    root = tmp_path_factory.mktemp("papers")
    store = Store(root / "results")
    todo: dict[str, list[RunSpec]] = {}
    for cell in some_cells():
        if cell not in todo.setdefault(cell.model, []):
            todo[cell.model].append(cell)
    options = DataOptions(mini_data, judge="rule")
    names = {name for cells in todo.values() for cell in cells for name in cell.data or ()}
    datasets = {name: BENCHMARKS.get(name)(options) for name in sorted(names)}
    for model, cells in todo.items():
        loaded = load(find_model(model), place("auto", "auto", "cpu"))
        for cell in cells:
            with RunProgress(ROWS, Console(quiet=True)) as progress:
                run = Run(loaded, cell.choice, RunOptions(cell.protocol, cell.limit))
                run.evaluate([datasets[name] for name in cell.data or ()], store, progress)
    return store.root


@pytest.fixture(scope="module")
def records(output: Path) -> list[RunRecord]:
    return list(Store(output).records())


def on_stand_ins(name: str, records: list[RunRecord]) -> list[Compared]:
    return compare([read_stand_ins().line(line) for line in read_table(name).lines], StoredRuns(records))


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", TRANSCRIBED)
def test_every_table_is_printed_beside_ours(name: str, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--paper", name, "--mini", "--output", str(output), "--csv", str(output / "c.csv")]) == 0
    told = capsys.readouterr().out
    assert "difference" in told
    assert f"sweep configs/papers/{name}.yaml --mini" in told
    with (output / "c.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(read_table(name).lines)
    assert any(line["ours"] for line in lines)


def test_ours_is_what_the_record_says(records: list[RunRecord]) -> None:
    one = next(c for c in on_stand_ins("fopru-table3", records) if c.line.method == "none" and c.line.column == "Ai2D")
    score = next(
        r.datasets["mini-scienceqa"].score
        for r in records
        if r.model.name == "tiny-llava" and r.setup.method.name == "none" and "mini-scienceqa" in r.datasets
    )
    assert one.ours is not None
    assert score is not None
    assert one.ours.value == score.value
    assert one.ours.interval == score.interval  # or none in both, of few rows
    assert one.difference == score.value - float(one.line.value)


def test_seeds_of_a_random_method_are_one_number(records: list[RunRecord]) -> None:
    one = next(
        c
        for c in on_stand_ins("uniprunebench-table2", records)
        if c.line.row == "Random-Pre" and c.line.ratio == 0.333 and c.line.column == "MME"
    )
    assert one.ours is not None
    known = [
        (r.setup.seed, entry.score.value)
        for r in records
        if (r.model.name, r.setup.method.name, r.setup.ratio) == (one.line.model, "random-pre", 0.333)
        for name, entry in r.datasets.items()
        if name == "mini-mme" and entry.score
    ]
    assert len(known) == 2
    values = [value for _, value in sorted(known)]
    assert one.runs == 2
    assert one.ours.value == pytest.approx(fmean(values))
    assert one.ours.spread == pytest.approx(stdev(values))


def test_times_follow_from_the_stored_spans(records: list[RunRecord]) -> None:
    compared = on_stand_ins("fopru-table5", records)
    ttft = next(c for c in compared if c.line.quantity == "TTFT ms" and c.line.method == "none")
    timing = next(
        r.datasets["mini-pope"].timing
        for r in records
        if r.model.name == "tiny-llava" and r.setup.method.name == "none" and "mini-pope" in r.datasets
    )
    assert ttft.ours is not None
    assert timing is not None
    assert timing.ttft is not None
    assert ttft.ours.value == timing.ttft.median
    faster = next(c for c in compared if c.line.quantity == "TTFT speed-up" and c.ours)
    pruned = next(c for c in compared if c.line.place == faster.line.place and c.line.quantity == "TTFT ms")
    assert pruned.ours is not None
    assert faster.ours is not None
    assert faster.ours.value == pytest.approx(ttft.ours.value / pruned.ours.value)
    others = []
    for record in records:
        entries = {name: one.model_copy(update={"batching": {"3": one.rows}}) for name, one in record.datasets.items()}
        batched = record.setup.method.kind != "none"
        others.append(record.model_copy(update={"datasets": entries if batched else record.datasets}))
    speedups = [c.ours for c in on_stand_ins("fopru-table5", others) if c.line.quantity == "TTFT speed-up"]
    assert not any(speedups), "times of several batch sizes do not compare"
    assert conditions([(ttft, ttft.ours)]).startswith("batch size 8 on ")
    memory = [c for c in compared if c.line.quantity == "GPU GB"]
    assert memory
    assert all(c.ours is None for c in memory)  # nothing of a CPU


def test_memory_is_read_in_the_units_papers_print(records: list[RunRecord]) -> None:
    def on_gpu(record: RunRecord) -> RunRecord:
        peak = 2048.0 if record.setup.method.kind == "none" else 1536.0
        timed = {n: e.model_copy(update={"timing": e.timing.model_copy(update={"peak_mib": peak})})
                 for n, e in record.datasets.items() if e.timing}  # fmt: skip
        return record.model_copy(update={"datasets": timed})

    compared = [c for name in ("fopru-table5", "zspaprune-table3") for c in on_stand_ins(name, [*map(on_gpu, records)])]
    ours = {(c.line.method, c.line.quantity): c.ours.value for c in compared if c.ours}
    assert ours["none", "GPU GB"] == 2.0
    assert ours["fopru", "GPU GB"] == 1.5
    assert ours["zspaprune", "peak MB"] == 1536
    assert ours["zspaprune", "peak MB change"] == -512


def test_kept_tokens_are_those_of_the_ledger(records: list[RunRecord]) -> None:
    kept = {
        (c.line.method, c.line.quantity): c.ours.value
        for c in on_stand_ins("zspaprune-table3", records)
        if c.ours and c.line.quantity.startswith("visual tokens")
    }
    assert kept["none", "visual tokens"] == 144
    assert kept["zspaprune", "visual tokens"] == 14
    assert kept["zspaprune", "visual tokens before"] == 144


def test_other_ratios_fields_and_protocols_are_not_joined(records: list[RunRecord]) -> None:
    line = read_stand_ins().line(
        next(x for x in read_table("fopru-table5").lines if x.settings == "strategy=row scope=tile" and x.ratio == 0.25)
    )
    found = compare([line], StoredRuns(records))[0].ours
    assert found is not None
    for change in ({"ratio": 0.26}, {"settings": "strategy=row scope=tile order=release"}, {"model": "tiny-internvl"}):
        assert compare([line.model_copy(update=change)], StoredRuns(records))[0].ours is None
    average = [r.model_copy(update={"setup": r.setup.model_copy(update={"protocol": "average"})}) for r in records]
    assert compare([line], StoredRuns(average))[0].ours is None


def test_a_printed_number_is_inside_or_outside_or_neither() -> None:
    line = read_table("uniprunebench-table3").lines[0]
    assert line.number == 82.5
    assert Compared(line, ScoreCell(80.0, (78.0, 83.0))).inside is True
    assert Compared(line, ScoreCell(80.0, (78.0, 82.0))).inside is False
    assert Compared(line, ScoreCell(80.0)).inside is None
    assert Compared(line, ScoreCell(80.0)).difference == -2.5
    assert Compared(line).difference is None


def test_what_is_not_run_is_told_with_command_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--paper", "uniprunebench-table4", "--output", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "python run.py sweep configs/papers/uniprunebench-table4.yaml" in told
    rows = 14 * BENCHMARKS.entry("mme").metadata["rows"]  # four methods, and two with five seeds
    hours = rows * 8 * (40 + 3 * 3.2) / 3_600_000
    assert f"{rows:,} rows" in told
    assert f"about {hours:.1f} GPU hours: an estimate" in told
    assert "--batch-size 1" in told
    assert "rows are guessed for mme" in told
    assert "errata and doubts: 11 of 18 printed numbers" in told
    assert "[1] 5 x suspect: total falls by" in told
    assert main(["compare", "--paper", "uniprunebench-table3", "--output", str(tmp_path)]) == 0
    assert "mathvision, mathvista, mia-bench need a judge" in capsys.readouterr().out


def test_stored_runs_lower_what_is_left_and_give_measured_times(records: list[RunRecord]) -> None:
    sweep = read_stand_ins().sweep(read_table("fopru-table5").sweep)
    cells = [replace(cell, limit=ROWS) for cell in sweep.cells()]
    before = cost(cells, StoredRuns([]), read_assumptions())
    after = cost(cells, StoredRuns(records), read_assumptions())
    assert (before.done, before.pairs) == (0, 4)
    assert 0 < after.done < 4
    assert after.rows == before.rows - ROWS * after.done
    assert after.measured == after.rows
    assert before.unknown == {"size of tiny-llava"}


def test_without_a_table_all_are_listed(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--mini", "--output", str(output)]) == 0
    told = capsys.readouterr().out
    for name in TRANSCRIBED:
        line = next(line for line in told.splitlines() if line.startswith(name))
        assert re.search(r" [1-9]\d* of \d+ ", line), line


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--paper", "uniprunebench-tabel3"]) == 2
    assert "did you mean 'uniprunebench-table3'" in capsys.readouterr().err
    assert main(["compare", "--csv", str(tmp_path / "x.csv")]) == 2
    assert "--paper" in capsys.readouterr().err
