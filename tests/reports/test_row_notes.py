"""Remarks on rows below every table of scores: `compare`, `analyse` and the mini suite's pages."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.helpers import records
from uniprune.benchmarks.mini import report, rows
from uniprune.cli.main import main
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.results.records import RunRecord
from uniprune.results.remarks import CONTEXT, CUT, REMARKS, UNREAD, row_notes
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end

NAMES = ("mini-mme", "mini-pope")


def run(spec: MethodSpec, **remarks: int) -> RunRecord:
    score = records.score([1.0, 0.0] * 50, unparsed=3)
    datasets = {name: records.dataset(score, suite="mini", remarks=remarks) for name in NAMES}
    method = spec.record(spec.pruner(), attends=[True] * 6)
    return records.run(method, datasets, spec.pruner().ratio, spec.seed, "tiny-llava")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.write(run(MethodSpec("none"), **{CONTEXT: 40}))
    store.write(run(MethodSpec("random-pre", 0.333), **{CONTEXT: 40, CUT: 20}))
    return store


def test_compare_and_analyse_note_the_rows_of_their_runs(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    output = ["--output", str(store.root)]
    assert main(["compare", "--paper", "uniprunebench-table1", "--mini", *output, "--csv", str(table)]) == 0
    compared = capsys.readouterr().out
    assert main(["analyse", *output]) == 0
    analysed = capsys.readouterr().out
    for shown in (compared, analysed):
        for name in NAMES:
            assert f"{name}: rows {REMARKS[CONTEXT]}: 40 of 100 rows (40 %) in tiny-llava" in shown
            assert f"{name}: rows {REMARKS[CUT]}: 20 of 100 rows (20 %) in tiny-llava random-pre 0.333" in shown
            assert f"{name}: rows {REMARKS[UNREAD]}: 3 of 100 rows (3 %)" in shown
    ours = [line for line in csv.DictReader(table.open()) if line["method"] == "random-pre" and line["ours"]]
    assert ours
    assert all(f"{line['benchmark']}: 20 of 100 rows (20 %) {REMARKS[CUT]}" in line["remarks"] for line in ours)


def test_the_mini_suites_pages_end_with_notes() -> None:
    spec = MethodSpec("fastv", 0.333)
    one = run(spec, **{CUT: 20})
    ten = one.model_copy(update={"datasets": {f"mini-{i}": one.datasets["mini-mme"] for i in range(10)}})
    other = run(MethodSpec("fopru", 0.333), **{CUT: 20})
    assert rows.shown(report.CURVES, [ten, one, other]) == [ten]
    notes = row_notes((record, name) for record in (ten,) for name in rows.scored(record))
    page = report.markdown(report.CURVES, [], notes)
    assert page.rstrip().endswith(notes[-1])
    assert all(page.count(f"\n{note}\n") == 1 for note in notes)
